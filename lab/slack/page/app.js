// Without this file nothing would connect the page to the local workspace: no channel would fill, no question and no click would be sent.

import { composer, encoded } from "./composer.js";
import { confirmed, dropQuestion, showView } from "./dialogs.js";
import { byId, el, reconcile } from "./dom.js";
import { mrkdwn } from "./markup.js";
import { renderBlocks, renderFile } from "./render.js";

const GROUP_SECONDS = 300;
const TOAST_MS = 7000;
const RETRY_MS = 1000;
const SLACKBOT = "USLACKBOT";

const here = new URLSearchParams(location.search);
const state = {
  snapshot: null,
  receivedAt: 0,
  me: here.get("user") ?? "",
  channel: here.get("channel") ?? "",
  thread: here.get("thread") ?? "",
  closedThreads: new Set(),
  busy: new Set(),
  doubleNext: false,
  stream: null,
};

// -- the workspace's state arrives -----------------------------------------------------------------------------------

function connect() {
  state.stream?.close();
  const stream = new EventSource(`/page/stream?user=${encodeURIComponent(state.me)}`);
  state.stream = stream;
  stream.onopen = () => showConnection("live", "connected");
  stream.onmessage = (event) => receive(JSON.parse(event.data));
  stream.onerror = () => {
    showConnection("lost", "connection lost, trying again");
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => retry(stream), RETRY_MS);
  };
}

/** The stream was refused, not only lost; perhaps the address named somebody who is not in this workspace. */
function retry(stream) {
  if (stream !== state.stream) return;
  if (!state.snapshot) state.me = "";
  connect();
}

function showConnection(kind, text) {
  const line = byId("connection");
  line.className = `connection ${kind}`;
  line.textContent = text;
}

function receive(snapshot) {
  state.snapshot = snapshot;
  state.receivedAt = Date.now();
  state.me = snapshot.me;
  if (!snapshot.channels.some((channel) => channel.id === state.channel)) state.channel = snapshot.channels[0]?.id ?? "";
  openNewestAnswer();
  draw();
  tick();
}

/** A bot's answer with replies opens its thread when none is open; one that was closed stays closed. */
function openNewestAnswer() {
  if (state.thread && message(state.thread)) return;
  state.thread = "";
  const answers = messages().filter((one) => one.bot_id && one.reply_count && !state.closedThreads.has(one.ts));
  if (answers.length) state.thread = answers.at(-1).ts;
}

const messages = () => state.snapshot.messages[state.channel] ?? [];
const message = (ts) => messages().find((one) => one.ts === ts);
const isReply = (one) => Boolean(one.thread_ts) && one.thread_ts !== one.ts;
const channel = () => state.snapshot.channels.find((one) => one.id === state.channel);
const now = () => state.snapshot.now + (Date.now() - state.receivedAt) / 1000;

const names = {
  user: (id) => find("users", id)?.name ?? { [SLACKBOT]: "Slackbot", [state.snapshot.bot.user_id]: state.snapshot.bot.name }[id],
  group: (id) => find("groups", id)?.handle,
  channel: (id) => find("channels", id)?.name,
  get me() {
    return state.me;
  },
  now,
};

const find = (kind, id) => state.snapshot[kind].find((one) => one.id === id);

// -- what is sent ----------------------------------------------------------------------------------------------------

/** True when the workspace took it; else a toast says why not. */
async function post(path, body) {
  const answer = await answerOf(path, body);
  if (!answer.ok) toast(answer.error);
  return answer.ok;
}

async function answerOf(path, body) {
  try {
    const response = await fetch(`/page/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    return await response.json();
  } catch {
    return { ok: false, error: "the local workspace does not answer" };
  }
}

function toast(error) {
  const note = el("div", { class: "toast" }, el("strong", {}, "Not done. "), String(error));
  const toasts = byId("toasts");
  toasts.append(note);
  // shown anew each time, which puts it above a dialog opened since
  toasts.hidePopover();
  toasts.showPopover();
  setTimeout(() => note.remove(), TOAST_MS);
}

async function press(one, element) {
  const actor = state.me;
  if (state.busy.has(one.ts)) return;
  if (element.confirm && !(await confirmed(element.confirm, names))) return;
  if (actor !== state.me || state.busy.has(one.ts)) return;
  const click = { user: actor, channel: state.channel, ts: one.ts, action_id: element.action_id, value: element.value ?? "" };
  const times = state.doubleNext ? 2 : 1;
  setDouble(false);
  await whileBusy(one.ts, () => Promise.all(Array.from({ length: times }, () => post("click", click))));
}

async function whileBusy(ts, work) {
  state.busy.add(ts);
  draw();
  try {
    await work();
  } finally {
    state.busy.delete(ts);
    draw();
  }
}

async function submitView(view, values, button) {
  if (button) button.disabled = true;
  await post("submit", { user: state.me, view_id: view.id, values });
  if (button) button.disabled = false;
}

// -- drawing ---------------------------------------------------------------------------------------------------------

function draw() {
  drawSide();
  drawChannel();
  drawThread();
  drawDrawer();
  showView(state.snapshot.views.at(-1), {
    names,
    act: () => toast("buttons inside a modal are not part of this stand-in"),
    submit: submitView,
    close: (view) => post("close", { user: state.me, view_id: view.id }),
  });
  remember();
}

/** The address holds who looks where, so that a reload or a second window shows the same. */
function remember() {
  const place = new URLSearchParams({ user: state.me, channel: state.channel });
  if (state.thread) place.set("thread", state.thread);
  history.replaceState(null, "", `?${place}`);
}

function drawSide() {
  const { team, channels, users } = state.snapshot;
  byId("team").textContent = team.name;
  reconcile(byId("channels"), channels.map((one) => item(one.id, [one, one.id === state.channel], () => channelRow(one))));
  reconcile(byId("people"), [
    item("legend", [], () => el("legend", {}, "Act as")),
    ...users.map((one) => item(one.id, [one, one.id === state.me], () => personRow(one))),
  ]);
}

const item = (key, parts, build) => ({ key, signature: JSON.stringify(parts), build });

function channelRow(one) {
  const mark = one.private ? "private" : "";
  const notes = [one.private && "private", !one.has_bot && "no app", !one.member && "not a member"].filter(Boolean).join(", ");
  const button = el(
    "button",
    { type: "button", class: `channel ${mark}`, "data-action": "open", "aria-current": one.id === state.channel ? "page" : null, onclick: () => openChannel(one.id) },
    el("span", { class: "sign", "aria-hidden": "true" }, one.private ? "◆" : "#"),
    el("span", { class: "channel-name" }, one.name),
    notes && el("span", { class: "dim" }, notes),
  );
  return el("li", {}, button);
}

function openChannel(id) {
  state.channel = id;
  state.thread = "";
  openNewestAnswer();
  draw();
}

function personRow(one) {
  const input = el("input", { type: "radio", name: "me", value: one.id, checked: one.id === state.me, "data-action": "be", onchange: () => become(one.id) });
  return el("label", { class: "person" }, input, avatar(one.id), el("span", {}, one.real_name || one.name, one.stranger && el("small", { class: "dim" }, "of another workspace")));
}

function become(id) {
  state.me = id;
  dropQuestion();
  connect();
}

function avatar(id) {
  const name = find("users", id)?.real_name || names.user(id) || id;
  const hue = Array.from(id).reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 997, 7) % 8;
  return el("span", { class: `avatar hue-${hue}`, "aria-hidden": "true" }, initials(name));
}

function initials(name) {
  const [first, second] = name.split(/\s+/);
  return (second ? first[0] + second[0] : first.slice(0, 2)).toUpperCase();
}

function drawChannel() {
  const one = channel();
  byId("channel-name").textContent = one ? `# ${one.name}` : "No channel to see";
  byId("channel-topic").textContent = one?.topic ?? "";
  drawMessages(byId("messages"), messages().filter((each) => !isReply(each)), true);
  composers.channel.allow(Boolean(one?.member));
}

function drawThread() {
  const root = state.thread ? message(state.thread) : null;
  byId("thread").hidden = !root;
  if (!root) return;
  byId("thread-about").textContent = `# ${channel().name}`;
  drawMessages(byId("replies"), messages().filter((each) => each.ts === root.ts || each.thread_ts === root.ts), false);
  composers.thread.allow(channel().member);
}

/** Whoever reads at the end stays there; whoever has scrolled up is left alone. A thread opens where it begins. */
function drawMessages(list, shown, withReplies) {
  const following = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  const before = list.lastElementChild?.dataset.key;
  reconcile(list, shown.map((one, index) => {
    const compact = continues(shown[index - 1], one);
    const open = withReplies && one.ts === state.thread;
    const parts = [one, compact, open, state.busy.has(one.ts), state.snapshot.users, state.me];
    return item(one.ts, parts, () => messageRow(one, { compact, open, withReplies }));
  }));
  if (!before && !withReplies) list.scrollTop = 0;
  else if (following || before !== list.lastElementChild?.dataset.key) list.scrollTop = list.scrollHeight;
}

const continues = (before, one) =>
  Boolean(before) && before.user === one.user && !before.is_ephemeral && !one.is_ephemeral && Number(one.ts) - Number(before.ts) < GROUP_SECONDS;

function messageRow(one, { compact, open, withReplies }) {
  const name = names.user(one.user) ?? one.user;
  const head = el("header", { class: "message-head" }, el("span", { class: "author" }, name), one.bot_id && el("span", { class: "badge" }, "APP"), stamp(one));
  const body = el(
    "div",
    { class: "message-body" },
    one.is_ephemeral && el("p", { class: "only-you" }, "Only visible to you"),
    head,
    ...content(one),
    ...(one.files ?? []).map(renderFile),
    one.edited && el("span", { class: "dim edited" }, "(edited)"),
    withReplies && one.reply_count ? repliesButton(one) : null,
  );
  const classes = ["message", compact && "compact", open && "open", one.is_ephemeral && "ephemeral"].filter(Boolean).join(" ");
  return el("article", { class: classes, "data-ts": one.ts, "aria-label": `${name}: ${one.text}` }, avatar(one.user), body);
}

function stamp(one) {
  const moment = new Date(Number(one.ts) * 1000);
  return el("time", { class: "dim", datetime: moment.toISOString(), title: moment.toString() }, timeOf(moment, { hour: "2-digit", minute: "2-digit" }));
}

const timeOf = (moment, options = { hour: "2-digit", minute: "2-digit", second: "2-digit" }) => moment.toLocaleTimeString(undefined, { ...options, hourCycle: "h23" });

function content(one) {
  if (!one.blocks?.length) return [mrkdwn(one.text ?? "", names)];
  return renderBlocks(one.blocks, { names, busy: state.busy.has(one.ts), act: (element) => press(one, element) });
}

function repliesButton(one) {
  const label = `${one.reply_count} ${one.reply_count === 1 ? "reply" : "replies"}`;
  return el("button", { type: "button", class: "replies", "data-action": "thread", onclick: () => openThread(one.ts) }, label, el("span", { "aria-hidden": "true" }, " ›"));
}

function openThread(ts) {
  state.thread = ts;
  state.closedThreads.delete(ts);
  byId("replies").replaceChildren();
  draw();
  byId("replies").focus();
}

function closeThread() {
  state.closedThreads.add(state.thread);
  state.thread = "";
  draw();
  byId("composer-text").focus();
}

// -- composers -------------------------------------------------------------------------------------------------------

const composers = {
  channel: composer(byId("composer"), false, (text) => say(text, {})),
  thread: composer(byId("reply"), true, (text) => say(text, { thread_ts: state.thread })),
};

function say(text, where) {
  const { users, groups } = state.snapshot;
  return post("say", { user: state.me, channel: state.channel, text: encoded(text, users, groups), ...where });
}

// -- deliveries, clock, faults ---------------------------------------------------------------------------------------

function drawDrawer() {
  const { deliveries, calls, faults } = state.snapshot;
  reconcile(byId("deliveries"), newestFirst(deliveries, deliveryRow));
  reconcile(byId("calls"), newestFirst(calls, callRow));
  byId("drawer-last").textContent = summary(deliveries.at(-1), calls.filter((call) => !call.ok).at(-1));
  for (const button of document.querySelectorAll("[data-fault]")) {
    button.classList.toggle("armed", Boolean(faults[button.dataset.fault]));
  }
}

const newestFirst = (entries, row) => entries.map((entry, index) => item(String(index), [entry], () => row(entry))).reverse();

function summary(delivery, failed) {
  const parts = [];
  if (delivery) parts.push(`last: ${delivery.kind} ${delivery.what}, ${acknowledged(delivery)}`);
  if (failed) parts.push(`last refused call: ${failed.method} ${failed.error}`);
  return parts.join(" · ");
}

const acknowledged = (delivery) => (delivery.ack_ms === null || delivery.ack_ms === undefined ? "no ack" : `ack ${Math.round(delivery.ack_ms)} ms`);
const cells = (...texts) => texts.map((text) => el("td", {}, String(text ?? "")));
const at = (entry) => timeOf(new Date(entry.at * 1000));

function deliveryRow(entry) {
  const result = entry.result ?? "";
  return el("tr", { class: result && result !== "ok" ? "bad" : null }, ...cells(at(entry), entry.kind, entry.what, acknowledged(entry), result));
}

function callRow(call) {
  return el("tr", { class: call.ok ? null : "bad" }, ...cells(at(call), call.method, call.ok ? "ok" : call.error));
}

function tick() {
  if (!state.snapshot) return;
  const clock = byId("clock");
  const ahead = Math.round(state.snapshot.ahead / 60);
  clock.textContent = timeOf(new Date(now() * 1000)) + (ahead ? ` (+${ahead} min)` : "");
}

/** A permalink of this workspace leads to its message here, not to a page of its own. */
function followPermalink(event) {
  const link = event.target.closest("a[href]");
  const address = link && new URL(link.href);
  const found = address?.origin === location.origin && /^\/archives\/(\w+)\/p(\d+)(\d{6})$/.exec(address.pathname);
  if (!found) return;
  event.preventDefault();
  const [, channelId, seconds, number] = found;
  state.channel = channelId;
  openThread(address.searchParams.get("thread_ts") ?? `${seconds}.${number}`);
}

function setDouble(on) {
  state.doubleNext = on;
  byId("double").setAttribute("aria-pressed", String(on));
}

function toggleDrawer() {
  const body = byId("drawer");
  body.hidden = !body.hidden;
  byId("drawer-toggle").setAttribute("aria-expanded", String(!body.hidden));
}

function listen() {
  document.addEventListener("click", followPermalink);
  byId("thread-close").addEventListener("click", closeThread);
  byId("thread").addEventListener("keydown", (event) => event.key === "Escape" && closeThread());
  byId("drawer-toggle").addEventListener("click", toggleDrawer);
  byId("double").addEventListener("click", () => setDouble(!state.doubleNext));
  for (const button of document.querySelectorAll("[data-seconds]")) {
    button.addEventListener("click", () => post("clock", { seconds: Number(button.dataset.seconds) }));
  }
  for (const button of document.querySelectorAll("[data-fault]")) {
    button.addEventListener("click", () => post("fault", { kind: button.dataset.fault }));
  }
}

listen();
connect();
setInterval(tick, 1000);
