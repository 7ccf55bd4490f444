"""A key or password is in no file and no message, whatever happens."""

import base64
import json
import shutil
import subprocess
import sys
import time

import pytest

from lmsi_jax.cli.configs import load_config
from lmsi_jax.cli.main import main
from lmsi_jax.core import secrets
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.settings import to_dict
from lmsi_jax.decoding.config import EndpointConfig
from lmsi_jax.decoding.endpoint import Endpoint
from lmsi_jax.recipes.config import Config
from tests.decoding.test_endpoint import SAMPLING, ask
from tests.runs import ROOT, SMALL, environment
from tests.server import Canned, Server

KEY = "sk-planted-4711"
LOGIN = "me:planted%2F4711"  # its password is planted/4711
BASIC = base64.b64encode(b"me:planted/4711")
HEADERS = {"key": f"Bearer {KEY}", "login": f"Basic {BASIC.decode()} of {LOGIN} and planted/4711"}
FAULTS = {
    "refused": (401, "with status 401"),
    "broken": (500, "failed 2 times; last failure: status 500"),
    "garbled": (200, "a reply that is not JSON"),
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """What one test plants hides nothing in the next."""
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr(secrets, "_logins", {})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def with_login(url, login=LOGIN):
    return url.replace("://", f"://{login}@")


def assert_no_secret(folder, said):
    """Neither what was said nor any file below a folder, or its name, holds a planted secret."""
    for secret in (b"planted", BASIC):
        assert secret not in said.encode(), said
        for file in folder.rglob("*"):
            assert secret not in bytes(file.relative_to(folder)), file
            assert file.is_dir() or secret not in file.read_bytes(), file


def run_main(arguments):
    """The status with which `lmsi` ends in this process."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def sampling(url, workdir, *arguments, stage="sample"):
    """The arguments of `lmsi` for one stage of a run that samples from a server at `url`, and gives up soon."""
    settings = {
        **SMALL, "mesh.cpu_devices": 0, "mesh.data": -1, "sample.lanes": 8, "finetune.batch": 8, "sample.engine": "openai",
        "sample.endpoint.model": "m", "sample.endpoint.url": url, "sample.endpoint.retries": 1, "sample.endpoint.timeout": 0.3,
    }  # fmt: skip
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["lmsi", "run", f"--config={ROOT}/configs/tiny.py", f"--workdir={workdir}", f"--only={stage}", *arguments, *flags]


def sample(*arguments, **options):
    return run_main(sampling(*arguments, **options))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A work directory with questions."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    assert sample("http://localhost:8000/v1", folder, stage="prepare") == 0
    return folder


@pytest.fixture
def workdir(prepared, tmp_path, monkeypatch):
    """The same, in a folder that all is run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lmsi_jax.decoding.endpoint.LONGEST_WAIT", 0.01)
    return shutil.copytree(prepared, tmp_path / "run")


@pytest.fixture
def said(capsys, tmp_path):
    """What was printed until it is called, in which, as in all files of the folder, there is no secret."""

    def printed():
        captured = capsys.readouterr()
        assert_no_secret(tmp_path, captured.out + captured.err)
        return captured.out + captured.err

    return printed


@pytest.mark.parametrize("by", ["key", "login"])
def test_the_server_gets_the_secret_and_nobody_else(by, workdir, said, monkeypatch):
    """Catches: a key with a line break from a file that is not taken, a login that does not work, or either in a file."""
    server = Server()
    if by == "key":
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\n")
    assert sample(with_login(server.url) if by == "login" else server.url, workdir) == 0
    assert "rounds/1/sample: done" in said() and (workdir / "rounds/1/paths.jsonl").exists()
    assert set(server.keys) == {f"Bearer {KEY}" if by == "key" else f"Basic {BASIC.decode()}"}
    assert server.url in (workdir / "config.json").read_text()


@pytest.mark.parametrize("fault", [*FAULTS, "slow"])
@pytest.mark.parametrize("by", ["key", "login"])
def test_a_server_that_fails_tells_no_secret(by, fault, workdir, said, monkeypatch):
    """Catches: a message that holds the key or the login, by way of the address, the header or the server's own words."""
    status, message = FAULTS.get(fault, (0, "failed 2 times; last failure: ReadTimeout"))
    telling = Canned(b"You sent " + HEADERS[by].encode(), status)
    server = Server(["slow" if fault == "slow" else telling] * 99)
    if by == "key":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sample(with_login(server.url) if by == "login" else server.url, workdir) == 2
    assert message in said()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid"])
def test_nobody_there_tells_no_secret(address, workdir, said):
    """Catches: a login in the message for a server that is not there."""
    assert sample(f"http://{LOGIN}@{address}/v1", workdir) == 2
    assert f"http://{address}/v1/completions failed 2 times" in said()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://me:planted4711@host/v1", "sample.endpoint.url"),
        ("http://me:planted/4711@host/v1", "%2F"),
        ("http://me:planted#4711@host/v1", "%23"),
        ("http://me:planted4711/v1", "sample.endpoint.url"),
        ("me:planted4711@host/v1", "sample.endpoint.url"),
        ("http://host/v1?key=planted4711", "environment variable"),
        ("http://host/v1?api-version=1&api_key=planted4711", "environment variable"),
    ],
)
def test_an_address_that_cannot_be_is_refused_unseen(url, message, said, tmp_path):
    """Catches: a password in the message about an address with a slip in it; a key in the address that is stored."""
    assert sample(url, tmp_path / "run") == 2
    assert message in said() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.sample.endpoint.ulr=x"], "Unknown config key 'sample.endpoint.ulr'"),
        (["--config.sample.endpoint.ulr=http://me:planted4711@host/v1"], "Unknown config key 'sample.endpoint.ulr'"),
        (["http://me:planted4711@host/v1"], "is not a flag"),
        (["--config.finetune.steps=http://me:planted4711@host/v1"], "finetune.steps"),
        (["--config.sample.endpoint.key_variable=sk-planted-4711"], "sample.endpoint.key_variable"),
    ],
)
def test_a_slip_beside_a_login_tells_no_secret(arguments, message, said, tmp_path):
    """Catches: an error about one argument that shows another, or its own value."""
    assert sample(f"http://{LOGIN}@host/v1", tmp_path / "run", *arguments) == 2
    assert message in said()


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY} {KEY}", f"{KEY}\u2014", f"Bearer {KEY}", f"{KEY}\x7f"])
def test_a_key_that_is_none_is_refused_at_once(key, said, tmp_path, monkeypatch):
    """Catches: a key with a line break in it that is tried seven times, after hours of other stages, and then printed."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server = Server()
    assert sample(server.url, tmp_path / "run") == 2
    assert "environment variable OPENAI_API_KEY" in said() and not server.bodies and not list(tmp_path.iterdir())


def test_a_key_and_a_login_are_refused(workdir, said, monkeypatch):
    """Catches: one of two secrets that is silently not used."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    assert sample(with_login(server.url), workdir) == 2
    assert "a login, and the environment variable OPENAI_API_KEY has a key" in said() and not server.bodies


def test_no_secret_comes_from_elsewhere(monkeypatch, tmp_path):
    """Catches: a password of ~/.netrc, of which the config says nothing, that is sent in place of the key."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password planted4711\n")
    monkeypatch.setenv("NETRC", str(netrc))
    _, server = ask([])
    assert server.keys == [None]


@pytest.mark.parametrize(
    "body", ["raise ValueError('http://me:planted4711@host/v1')", "return {}['http://me:planted4711@host/']"]
)
def test_a_config_file_that_fails_tells_no_secret(body, tmp_path, capsys):
    """Catches: an error of a config file that shows the address in it."""
    (tmp_path / "config.py").write_text(f"def get_config():\n    {body}\n")
    assert run_main(["lmsi", "doctor", f"--config={tmp_path}/config.py"]) == 2
    said = capsys.readouterr().err
    assert "config.py failed" in said and "planted" not in said


def test_a_config_keeps_no_login(tmp_path):
    """Catches: a login of a config file that is stored with the config, or lost."""
    url = f"http://{LOGIN}@host:8000/v1"
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config(): return ConfigDict({{'sample': {{'endpoint': {{'model': 'm', 'url': '{url}'}}}}}})\n"
    )
    for config in (
        load_config(Config, str(tmp_path / "config.py"), []),
        load_config(Config, None, [f"--config.sample.endpoint.url={url}"]),
    ):
        assert config.sample.endpoint.url == "http://host:8000/v1" and "planted" not in json.dumps(to_dict(config))
    assert secrets.authorization("http://host:8000/v1") == f"Basic {BASIC.decode()}"
    assert secrets.authorization("http://other:8000/v1") == secrets.authorization("http://host/v1") == ""


def test_a_login_is_taken_from_arguments():
    """Catches: a password in the command line that run.json keeps; a path or an address that is changed without need."""
    plain = ["lmsi", "--workdir=gs://bucket/me@here", "--config.sample.stops=('a@b', '?')", "-", "http://h/@x", "http://h/?a=b"]
    assert secrets.scrub(plain) == plain
    argv = [
        f"--config.sample.endpoint.url=http://{LOGIN}@h/v1",
        "http://planted@h",
        "http://me:p@planted@h:1/",
        "x://h/?sig=planted",
    ]
    assert secrets.scrub(argv) == ["--config.sample.endpoint.url=http://h/v1", "http://h", "http://h:1/", "x://h/?sig=***"]


@pytest.mark.parametrize(
    "text", [LOGIN, "planted/4711", repr("planted/4711"), KEY, BASIC.decode(), "?token=planted9", "s3://a:planted9@b"]
)
def test_redact(text):
    """Catches: a secret that is shown since it is written in another way."""
    secrets.register(KEY)
    secrets.scrub([f"http://{LOGIN}@host"])
    said = secrets.redact(f"before {text} after")
    assert "planted" not in said and BASIC.decode() not in said and said.startswith("before ") and said.endswith(" after")


@pytest.mark.parametrize("part", ["x", "x://", "?a", "?key", "a:", "@", "key"])
def test_redact_is_quick(part):
    """Catches: minutes spent on the first megabyte of a reply, because a search starts anew at every character."""
    text, start = f"x://?{part * 2**18}", time.perf_counter()
    assert secrets.redact(text) == text and secrets.strip(text) == text
    assert time.perf_counter() - start < 5


def test_short_secrets_hide_no_words():
    """Catches: messages that nobody can read, because the key of a local server is a letter."""
    secrets.register("x", "")
    assert secrets.redact("an example") == "an example"


def test_an_endpoint_takes_the_login_out_of_its_address(monkeypatch):
    """Catches: a login in the messages of an endpoint that no command line made."""
    endpoint = Endpoint(EndpointConfig(url=f"http://{LOGIN}@host/v1", model="m"), SAMPLING)
    assert endpoint.url == "http://host/v1/completions"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UserError) as error:
        Endpoint(EndpointConfig(url=f"http://{LOGIN}@host/v1", model="m"), SAMPLING)
    assert "planted" not in str(error.value)


CRASH = """
import sys
from lmsi_jax.cli.main import main
from lmsi_jax.decoding import endpoint
def crash(*arguments):
    raise RuntimeError("a fault in {header}")
endpoint._reply = crash
main(sys.argv)
"""


def run_process(command, cache, folder, **variables):
    """A process in a folder, in whose files and on whose terminal there is no secret."""
    names = {**environment(cache), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=names, cwd=folder, check=False)
    assert_no_secret(folder, done.stdout + done.stderr)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("by", ["key", "login"])
def test_a_crash_tells_no_secret(by, workdir, tmp_path, compile_cache):
    """Catches: a stack trace that holds the key or the login."""
    server = Server()
    arguments = sampling(with_login(server.url) if by == "login" else server.url, workdir)[1:]
    command = [sys.executable, "-c", CRASH.format(header=HEADERS[by]), *arguments]
    done = run_process(command, compile_cache, tmp_path, **({"OPENAI_API_KEY": KEY} if by == "key" else {}))
    assert done.returncode == 1 and f"RuntimeError: a fault in {HEADERS[by].split()[0]} ***" in done.stderr


@pytest.mark.slow
def test_a_run_and_its_report_tell_no_secret(workdir, tmp_path, compile_cache):
    """Catches: a login in the command line of run.json, or in the report that shows it."""
    server = Server()
    for arguments in (sampling(with_login(server.url), workdir)[1:], ["report", f"--workdir={workdir}"]):
        done = run_process([sys.executable, "-m", "lmsi_jax.cli.main", *arguments], compile_cache, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert set(server.keys) == {f"Basic {BASIC.decode()}"}
    assert f"--config.sample.endpoint.url={server.url}" in json.loads((workdir / "run.json").read_text())["command_line"]
    assert server.url in (workdir / "report.html").read_text()
