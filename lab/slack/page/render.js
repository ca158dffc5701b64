// Without this file the page could not show a bot's blocks; what it cannot draw it says in red, so that nothing is lost unseen.

import { el } from "./dom.js";
import { emoji } from "./emoji.js";
import { broadcast, channelMention, dateNode, groupMention, linkNode, markdown, mrkdwn, plain, userMention } from "./markup.js";

/**
 * Blocks as nodes. `context` is {names, act(element), busy, input?(block)}: names as in markup.js, act is called for a pressed
 * button, busy draws buttons as not to be pressed, input draws an input block (only modals have them).
 */
export function renderBlocks(blocks, context) {
  return blocks.map((block) => guarded("block", block, () => lookup(BLOCKS, block)(block, context)));
}

/** A text object: mrkdwn or plain_text. */
export function renderText(text, names) {
  if (text.type === "mrkdwn") return mrkdwn(text.text, names);
  return el("div", { class: "text" }, ...plain(text.text, text.emoji !== false));
}

/** A file shared with a message: an image is shown, anything else can be fetched. */
export function renderFile(file) {
  const address = fileAddress(file.id);
  const title = file.title || file.name || file.id;
  if (!(file.mimetype ?? "").startsWith("image/")) return el("p", { class: "file" }, el("a", { href: address, download: file.name }, `📄 ${title}`));
  return figure(address, file.alt_txt || title, title);
}

const fileAddress = (id) => `/page/file/${encodeURIComponent(id)}`;

// -- what cannot be drawn --------------------------------------------------------------------------------------------

class Unsupported extends Error {}

function lookup(table, thing) {
  if (Object.hasOwn(table, thing?.type)) return table[thing.type];
  throw new Unsupported();
}

function guarded(what, thing, draw) {
  try {
    return draw();
  } catch (error) {
    const why = error instanceof Unsupported ? `unsupported ${what}` : `malformed ${what}`;
    return el("div", { class: "unsupported", role: "note", title: JSON.stringify(thing) }, `${why}: ${thing?.type ?? "without a type"}`);
  }
}

// -- blocks ----------------------------------------------------------------------------------------------------------

const BLOCKS = {
  header: (block) => el("h3", { class: "block-header" }, ...plain(block.text.text, block.text.emoji !== false)),
  divider: () => el("hr"),
  section,
  context: (block, context) => el("div", { class: "context" }, ...block.elements.map((element) => contextElement(element, context))),
  actions: (block, context) => el("div", { class: "actions" }, ...block.elements.map((element) => interactive(element, context))),
  image: (block) => picture(block),
  table,
  rich_text: (block, context) => el("div", { class: "text rich" }, ...block.elements.map((element) => richElement(element, context.names))),
  markdown: (block, context) => markdown(block.text, context.names),
  input: (block, context) => {
    if (!context.input) throw new Unsupported();
    return context.input(block);
  },
};

function section(block, context) {
  const body = el("div", { class: "section-body" });
  if (block.text) body.append(renderText(block.text, context.names));
  if (block.fields) body.append(el("div", { class: "fields" }, ...block.fields.map((field) => renderText(field, context.names))));
  const accessory = block.accessory && el("div", { class: "accessory" }, interactive(block.accessory, context));
  return el("div", { class: "section" }, body, accessory);
}

function contextElement(element, context) {
  return guarded("context element", element, () => {
    if (element.type === "image") return el("img", { class: "small-image", src: imageAddress(element), alt: element.alt_text });
    if (element.type !== "mrkdwn" && element.type !== "plain_text") throw new Unsupported();
    return renderText(element, context.names);
  });
}

function interactive(element, context) {
  return guarded("element", element, () => lookup(INTERACTIVE, element)(element, context));
}

const INTERACTIVE = {
  button: (element, context) =>
    el(
      "button",
      {
        type: "button",
        class: `button ${["primary", "danger"].includes(element.style) ? element.style : ""}`,
        // not "disabled", which would take the keyboard's focus away
        "aria-disabled": context.busy && "true",
        "data-action": element.action_id,
        "aria-label": element.accessibility_label,
        onclick: () => context.act(element),
      },
      ...plain(element.text.text, element.text.emoji !== false),
    ),
  static_select: (element, context) =>
    el(
      "select",
      {
        class: "button",
        disabled: context.busy,
        "data-action": element.action_id,
        "aria-label": element.placeholder?.text ?? "Choose",
        onchange: (event) => context.act({ ...element, value: event.target.value }),
      },
      el("option", { value: "", hidden: true }, element.placeholder?.text ?? "Choose an option"),
      ...element.options.map((option) => el("option", { value: option.value }, option.text.text)),
    ),
  image: (element) => el("img", { class: "accessory-image", src: imageAddress(element), alt: element.alt_text }),
};

function picture(block) {
  const address = imageAddress(block);
  if (new URL(address, location.href).origin !== location.origin && !address.startsWith("data:image/")) {
    return el("p", { class: "dim" }, "An image from elsewhere, which this page does not load: ", linkNode(address, block.alt_text) ?? block.alt_text);
  }
  return figure(address, block.alt_text, block.title?.text);
}

const imageAddress = (image) => (image.slack_file ? fileAddress(image.slack_file.id) : image.image_url);

function figure(address, alternative, title) {
  const image = el("img", { src: address, alt: alternative });
  const opened = address.startsWith("data:") ? image : el("a", { href: address, target: "_blank", rel: "noopener" }, image);
  return el("figure", {}, opened, title && el("figcaption", {}, title));
}

function table(block, context) {
  const settings = block.column_settings ?? [];
  const rows = block.rows.map((cells, row) =>
    el("tr", {}, ...cells.map((cell, column) => el(row ? "td" : "th", cellAttributes(row, settings[column]), cellContent(cell, context)))),
  );
  const body = el("table", { class: "grid" }, el("thead", {}, rows[0]), el("tbody", {}, ...rows.slice(1)));
  return el("div", { class: "grid-scroll", tabindex: "0", role: "region", "aria-label": "Table" }, body);
}

function cellAttributes(row, setting) {
  const align = ["center", "right"].includes(setting?.align) ? setting.align : "";
  return { scope: row ? null : "col", class: `${align} ${setting?.is_wrapped ? "" : "no-wrap"}`.trim() || null };
}

const CELLS = {
  raw_text: (cell) => document.createTextNode(cell.text),
  raw_number: (cell) => document.createTextNode(cell.text ?? String(cell.value)),
  rich_text: (cell, context) => BLOCKS.rich_text(cell, context),
};

const cellContent = (cell, context) => guarded("cell", cell, () => lookup(CELLS, cell)(cell, context));

// -- rich text -------------------------------------------------------------------------------------------------------

const richElement = (element, names) => guarded("rich text", element, () => lookup(RICH, element)(element, names));
const inlines = (element, names) => element.elements.map((one) => guarded("rich text", one, () => lookup(INLINE, one)(one, names)));

const RICH = {
  rich_text_section: (element, names) => el("p", {}, ...inlines(element, names)),
  rich_text_preformatted: (element, names) => el("pre", {}, ...inlines(element, names)),
  rich_text_quote: (element, names) => el("blockquote", {}, ...inlines(element, names)),
  rich_text_list: (element, names) =>
    el(
      element.style === "ordered" ? "ol" : "ul",
      { class: `indent-${Math.min(Number(element.indent) || 0, 4)}`, start: element.offset ? element.offset + 1 : null },
      ...element.elements.map((item) => el("li", {}, ...inlines(item, names))),
    ),
};

const INLINE = {
  text: (one) => styled(document.createTextNode(one.text), one.style),
  link: (one) => styled(linkNode(one.url, one.text) ?? document.createTextNode(one.text ?? one.url), one.style),
  emoji: (one) => emoji(one.name, one.unicode),
  user: (one, names) => userMention(one.user_id, names),
  usergroup: (one, names) => groupMention(one.usergroup_id, names),
  channel: (one, names) => channelMention(one.channel_id, names),
  broadcast: (one) => broadcast(one.range),
  date: (one, names) => dateNode(one.timestamp, one.format, one.fallback ?? "", names, one.url),
};

const STYLES = { code: "code", bold: "strong", italic: "em", strike: "del" };

function styled(node, style = {}) {
  return Object.entries(STYLES).reduce((inner, [name, tag]) => (style[name] ? el(tag, {}, inner) : inner), node);
}
