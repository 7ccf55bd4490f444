"""The review page in a real browser: labelling by keyboard, through a kill of the server."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from etils import epath

from lmsi_jax.analysis.reviews import audit
from lmsi_jax.core.records import read_jsonl
from tests.review.run import GROUP, make_run
from tests.runs import free_port

BROWSER = [shutil.which("chromium"), shutil.which("chromedriver")]
SCRIPT = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\"> 3 + 4 = 7. The answer is 7."
pytestmark = pytest.mark.skipif(None in BROWSER, reason="needs Chromium and its driver: apt-get install chromium-driver")


class Server:
    """`lmsi review` on a free port, which can be killed and started again."""

    def __init__(self, workdir, home):
        self.port, self.workdir, self.home = free_port(), workdir, home
        self.start()

    def start(self):
        command = [sys.executable, "-m", "lmsi_jax.cli.main", "review", f"--workdir={self.workdir}", f"--port={self.port}"]
        environment = {**os.environ, "HOME": str(self.home), "JAX_PLATFORMS": "cpu"}
        self.process = subprocess.Popen(
            [*command, "--reviewers=ann,bob"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.addresses, printed = {}, ""
        for line in self.process.stdout:
            printed += line
            found = re.match(r"(\w+): (http://\S+)", line)
            if found:
                self.addresses[found[1]] = found[2]
            if len(self.addresses) == 2:
                return
        raise AssertionError(printed)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    folder = make_run(tmp_path / "run", questions=40, extra=f" {SCRIPT}")
    running = Server(folder.root, tmp_path)
    yield running
    running.kill()


@pytest.fixture
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=BROWSER[1]))
    yield driver
    driver.quit()


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_thirty_items_by_keyboard_through_a_kill(server, browser):
    """Catches: a verdict that is lost or doubled when the server dies, a page that needs a mouse, a text that is run."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def text(id="item"):
        return browser.find_element(By.ID, id).text

    def press(*keys):
        for key in keys:
            browser.find_element(By.TAG_NAME, "body").send_keys(key)

    browser.get(server.addresses["ann"])
    given, questions = [], []
    for number in range(30):
        wait(lambda: "The vote:" in text() and text().partition("The vote:")[0] not in questions)
        questions.append(text().partition("The vote:")[0])
        if number == 3:  # the second step of the second path is its first wrong one; the first path is better than it
            press("1", "+", "2", Keys.ARROW_DOWN, "f", "-")
            assert "first wrong step" in text() and "rank 1" in text()
        if number == 12:
            server.kill()
        given.append(("right", "wrong", "unclear")[number % 3])
        press(given[-1][0], Keys.ENTER)
        if number == 12:
            wait(lambda: "1 verdict is kept in this browser" in text("problem"))
            server.start()
    wait(lambda: "30 reviewed" in text("progress"))
    assert browser.current_url == f"http://127.0.0.1:{server.port}/", "the token does not stay in the address"
    rows = list(read_jsonl(epath.Path(server.workdir) / GROUP / "reviews.jsonl"))
    labels = [row for row in rows if row["path"] is None]
    assert [row["verdict"] for row in labels] == given and len({row["id"] for row in labels}) == 30
    (path,) = [row for row in rows if row["path"] is not None]
    assert path["verdict"] == "wrong" and path["first_wrong_step"] is not None
    (ranking,) = read_jsonl(epath.Path(server.workdir) / GROUP / "rankings.jsonl")
    assert sorted(ranking["ranks"]) == [1, 2] and ranking["annotator"] == "ann"
    assert ranking["ranks"][ranking["paths"].index(path["path"])] == 2, "the path with a wrong step"
    press("z", "z")  # the second one goes back one more
    wait(lambda: text().partition("The vote:")[0] == questions[-2])
    press("r", Keys.ENTER)
    wait(lambda: text().partition("The vote:")[0] not in questions)
    browser.refresh()
    wait(lambda: "The vote:" in text() and text().partition("The vote:")[0] not in questions)
    wait(lambda: "30 reviewed" in text("progress") and text().partition("The vote:")[0] not in questions)
    found = audit(make_folder(server), GROUP)
    assert found.precision.reviewed == 30 and found.unclear == given.count("unclear") - (given[-2] == "unclear")
    assert browser.title == "Review"
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("net::ERR_CONNECTION" in message or "favicon" in message for message in errors), errors


def make_folder(server):
    from lmsi_jax.pipeline.run_folder import RunFolder

    return RunFolder(epath.Path(server.workdir))


def test_a_models_text_is_shown_as_text(server, browser):
    """Catches: markup of a model that the page reads, an item that a second tab shows too."""
    from selenium.webdriver.common.by import By

    browser.get(server.addresses["bob"])
    seen = []
    for _ in range(45):
        wait(lambda: "The vote:" in browser.find_element(By.ID, "item").text or "Nothing is left" in browser.page_source)
        item = browser.find_element(By.ID, "item").text
        seen.append(item)
        if SCRIPT in item or "Nothing is left" in item:
            break
        browser.find_element(By.TAG_NAME, "body").send_keys("r\n")
        wait(lambda: browser.find_element(By.ID, "item").text != seen[-1])
    assert any(SCRIPT in item for item in seen) and browser.title == "Review"
    assert not browser.find_elements(By.CSS_SELECTOR, "#item img, #item script")
    browser.switch_to.new_window("tab")
    browser.get(server.addresses["bob"])
    wait(lambda: "The vote:" in browser.find_element(By.ID, "item").text)
    assert browser.find_element(By.ID, "item").text != seen[-1]
