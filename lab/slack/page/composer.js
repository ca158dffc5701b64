// Without this file there would be nothing to write in: no question, no command, no hint how to ask.

const WORDS = ["/calico", "@calico"];
const USAGE = "why ns/pod ns/pod [port/tcp|udp] · fixes · approve · reject · help";

/** Brings a form with a text area and a hint to life. `send(text)` resolves to false when it was refused: the text comes back then. */
export function composer(form, inThread, send) {
  const field = form.querySelector("textarea");
  const update = () => {
    form.querySelector(".hint").textContent = hint(field.value, inThread);
    field.rows = Math.min(field.value.split("\n").length, 8);
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take(field, send).then(update);
    update();
  });
  field.addEventListener("input", update);
  field.addEventListener("keydown", (event) => onKey(event, form, field, update));
  update();
  return { allow: (allowed) => allow(form, field, allowed) };
}

/** As Slack's client sends it: three characters escaped and, in messages, names of people and groups as mentions. */
export function encoded(text, users, groups) {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  if (text.startsWith("/")) return escaped;
  return escaped.replace(/(?<![\w@])@(\w[\w.-]*\w)/g, (written, name) => {
    const user = users.find((one) => one.name === name);
    const group = groups.find((one) => one.handle === name);
    if (user) return `<@${user.id}>`;
    return group ? `<!subteam^${group.id}>` : written;
  });
}

function hint(text, inThread) {
  if (inThread && text.startsWith("/")) return "Slack takes no commands in threads. Here, ask @calico.";
  const word = WORDS.find((one) => text.startsWith(one));
  if (word) return `${word} ${USAGE}`;
  const begun = completion(text);
  if (begun) return `Tab completes ${begun} — ${USAGE}`;
  return inThread ? "Enter sends. Begin with @calico to ask." : "Enter sends. Begin with /calico or @calico to ask.";
}

const completion = (text) => (text ? WORDS.find((word) => word.startsWith(text) && word !== text) : undefined);

function onKey(event, form, field, update) {
  if (event.isComposing) return;
  const begun = completion(field.value);
  if (event.key === "Tab" && !event.shiftKey && begun) {
    event.preventDefault();
    field.value = `${begun} `;
    update();
  } else if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  }
}

async function take(field, send) {
  const text = field.value.trim();
  if (!text) return;
  field.value = "";
  if (!(await send(text)) && !field.value) field.value = text;
}

function allow(form, field, allowed) {
  field.disabled = !allowed;
  form.querySelector("button").disabled = !allowed;
  field.placeholder = allowed ? "Message" : "You are not a member of this channel";
}
