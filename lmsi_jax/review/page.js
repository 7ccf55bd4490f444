// The review page: one item at a time, by keyboard. What the server has not confirmed yet stays in the browser's storage.
"use strict";
(() => {
  const RETRY_MS = 2000;
  const VERDICTS = { r: "right", w: "wrong", u: "unclear" };
  const $ = id => document.getElementById(id);
  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), byte => byte.toString(16).padStart(2, "0")).join("");

  // The token comes in the fragment, which browsers do not send, and leaves the address bar at once.
  if (location.hash.length > 1) {
    sessionStorage.setItem("token", location.hash.slice(1));
    history.replaceState(null, "", location.pathname);
  }
  const token = sessionStorage.getItem("token") ?? "";
  const tab = sessionStorage.getItem("tab") ?? newId();  // stays the same when the page is loaded again
  sessionStorage.setItem("tab", tab);
  const waitingKey = `waiting ${token.slice(0, 8)}`;

  let item, started = 0, busy = false, retry = 0;  // item: undefined while the server is asked, null when none is left
  let verdict = null, chosen = 0, cursor = 0, ranks = new Map(), marked = new Map(), before = null;
  let earlier = [];  // what was sent from this tab, so that one can go back

  const waiting = () => JSON.parse(localStorage.getItem(waitingKey) ?? "[]");
  const keepWaiting = list => localStorage.setItem(waitingKey, JSON.stringify(list));

  function problem(words) {
    $("problem").textContent = words;
    $("problem").hidden = !words;
  }

  async function call(address, body) {
    const reply = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
    const data = await reply.json();
    if (!reply.ok) throw Object.assign(new Error(data.error ?? reply.statusText), { status: reply.status });
    return data;
  }

  // Send what waits, oldest first. A submission has a key, so that the server keeps it once however often it arrives. Only a
  // submission that is malformed or out of date (status 400) is given up, with its reason; anything else is tried again.
  async function send() {
    let refused = "";
    for (let list = waiting(); list.length; list = waiting()) {
      try {
        await call("/api/review", list[0]);
      } catch (error) {
        if (error.status !== 400) throw error;
        refused = `The server refused a verdict on ${list[0].id}: ${error.message}`;
      }
      keepWaiting(waiting().filter(each => each.key !== list[0].key));
    }
    return refused;
  }

  async function next() {
    if (busy) return;
    busy = true;
    clearTimeout(retry);
    try {
      const refused = await send();
      const data = await call("/api/next", { tab });
      problem(refused);
      for (const path of data.item?.paths ?? []) path.cut = [...path.text].length < path.length;
      const { own, all, open, items } = data.progress;
      $("progress").textContent = `${data.reviewer}: ${own} reviewed · ${all} of ${items} by anybody`;
      show(data.item, null);
      if (!data.item && open) {
        $("item").textContent = `Nothing is left for you; ${open} items are with other reviewers or in another tab.`;
        retry = setTimeout(next, 5 * RETRY_MS);
      }
    } catch (error) {
      const count = waiting().length;
      const kept = count ? ` ${count} verdict${count > 1 ? "s are" : " is"} kept in this browser and will be sent.` : "";
      problem((error.status ? error.message : "The server does not answer; start it again.") + kept);
      retry = setTimeout(next, RETRY_MS);
    } finally {
      busy = false;
    }
  }

  // Text reaches the page only through textContent, so that a model's text is never read as HTML.
  function make(tag, name, text) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // Show an item: a new one, or one that was sent before, to correct it.
  function show(next, sent) {
    item = next;
    before = sent;
    started = performance.now();
    verdict = sent?.verdict ?? null;
    ranks = new Map(Object.entries(sent?.ranks ?? {}).map(([path, rank]) => [Number(path), rank]));
    marked = new Map((sent?.paths ?? []).filter(each => each.verdict !== "unclear").map(({ path, ...rest }) => [path, rest]));
    chosen = cursor = 0;
    draw();
    scrollTo(0, 0);
  }

  function draw() {
    if (!item) {
      const done = "Nothing is left to review. Every verdict is kept; this page can be closed.";
      $("item").replaceChildren(make("p", "", item === null ? done : "Waiting for the server."));
      return;
    }
    const parts = [make("p", "question", item.question)];
    if (item.choices) {
      parts.push(...item.choices.map((choice, i) => make("p", "", `(${String.fromCharCode(65 + i)}) ${choice}`)));
    }
    const vote = make("p", "vote", "The vote: "), share = item.counts.find(([answer]) => answer === item.answer)?.[1] ?? 0;
    const others = item.counts.filter(([answer]) => answer !== item.answer).slice(0, 5);
    vote.append(make("b", "", item.answer), ` by ${share} of ${item.num_paths} paths`);
    if (others.length) vote.append(make("span", "muted", `; others: ${others.map(([a, n]) => `${a} (${n})`).join(", ")}`));
    const buttons = make("div", "verdicts");
    for (const [key, word] of Object.entries(VERDICTS)) {
      const button = make("button", "", `${word} (${key})`);
      button.setAttribute("aria-pressed", String(verdict === word));
      button.addEventListener("click", () => { verdict = word; draw(); });
      buttons.append(button);
    }
    const keep = make("button", "", "keep and go on (Enter)");
    keep.disabled = !verdict;
    keep.addEventListener("click", submit);
    buttons.append(keep);
    $("item").replaceChildren(...parts, vote, buttons, ...item.paths.map(drawPath));
  }

  function drawPath(path, number) {
    const box = make("section", number === chosen ? "path chosen" : "path"), about = make("div", "about");
    const own = marked.get(path.path);
    about.append(make("b", "", String(number + 1)), make("span", "", path.agrees ? "agrees with the vote" : "another answer"));
    if (ranks.has(path.path)) about.append(make("span", "", `rank ${ranks.get(path.path)}`));
    if (own) about.append(make("span", "", own.verdict === "right" ? "no wrong step" : `first wrong step: ${own.first_wrong_step + 1}`));
    const text = make("div", "text");
    let at = 0;
    path.steps.forEach(([start, end], n) => {
      if (start >= path.text.length) return;
      text.append(path.text.slice(at, start));
      const step = make("span", "step");
      if (number === chosen && n === cursor) step.classList.add("cursor");
      if (own?.first_wrong_step === n) step.classList.add("first-wrong");
      fill(step, path, start, Math.min(end, path.text.length));
      text.append(step);
      at = end;
    });
    text.append(path.text.slice(at));
    box.append(about, text);
    if (path.cut && !path.whole) {
      const more = make("button", "", `show all ${path.length.toLocaleString("en")} characters`);
      more.addEventListener("click", async () => {
        try {
          Object.assign(path, await call("/api/path", { id: item.id, path: path.path }));
          path.whole = true;
          draw();
        } catch (error) {
          problem(error.message);
        }
      });
      box.append(more);
    }
    box.addEventListener("click", () => { if (chosen !== number) { chosen = number; cursor = 0; draw(); } });
    return box;
  }

  function fill(step, path, start, end) {
    let at = start;
    for (const [from, to, verdict, value] of path.marks) {
      if (from < at || to > end) continue;
      const mark = make("span", `mark ${verdict}`, path.text.slice(from, to));
      mark.title = value ? `${verdict}: the right value is ${value}` : verdict.replace("_", " ");
      step.append(path.text.slice(at, from), mark);
      at = to;
    }
    step.append(path.text.slice(at, end));
  }

  function submit() {
    if (!item || !verdict || busy) return;
    const taken = (before?.paths ?? []).filter(each => !marked.has(each.path));  // marks that are taken back
    const sent = {
      key: newId(), id: item.id, seen: item.seen, verdict, seconds: (performance.now() - started) / 1000,
      paths: [
        ...[...marked].map(([path, rest]) => ({ path, ...rest })),
        ...taken.map(({ path }) => ({ path, verdict: "unclear", first_wrong_step: null })),
      ],
    };
    if (ranks.size || before?.ranks) sent.ranks = Object.fromEntries(ranks);
    keepWaiting([...waiting(), sent]);
    earlier.push({ item, sent });
    item = undefined;
    draw();
    next();
  }

  function rank(change) {
    const path = item.paths[chosen].path, worst = item.paths.length;
    ranks.set(path, Math.min(Math.max((ranks.get(path) ?? 1) + change, 1), worst));
  }

  function mark(isFine) {
    const path = item.paths[chosen].path, own = marked.get(path);
    const same = own && (isFine ? own.verdict === "right" : own.first_wrong_step === cursor);
    if (same) marked.delete(path);
    else marked.set(path, isFine ? { verdict: "right", first_wrong_step: null } : { verdict: "wrong", first_wrong_step: cursor });
  }

  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key === "Enter") return;
    if (event.key === "z" && earlier.length && item !== undefined && !busy) {
      const last = earlier.pop();
      show(last.item, last.sent);
      return;
    }
    if (!item) return;
    if (event.key === "Enter") {
      if (event.target.tagName === "BUTTON") return;
      submit();
      return;
    }
    const steps = item.paths[chosen]?.steps.length ?? 0, number = Number(event.key);
    if (VERDICTS[event.key]) verdict = VERDICTS[event.key];
    else if (number >= 1 && number <= item.paths.length) { chosen = number - 1; cursor = 0; }
    else if (event.key === "ArrowDown" && steps) cursor = Math.min(cursor + 1, steps - 1);
    else if (event.key === "ArrowUp" && steps) cursor = Math.max(cursor - 1, 0);
    else if (event.key === "f" && steps) mark(false);
    else if (event.key === "g" && steps) mark(true);
    else if (event.key === "+" && steps) rank(-1);
    else if (event.key === "-" && steps) rank(1);
    else return;
    event.preventDefault();
    draw();
    document.querySelector(".cursor")?.scrollIntoView({ block: "nearest" });
  });

  draw();
  next();
})();
