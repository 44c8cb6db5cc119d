// Shows the two documents. Whatever they say is set as text, never as markup.
"use strict";

const element = (name, ...children) => {
  const made = document.createElement(name);
  made.append(...children.filter((child) => child !== undefined && child !== ""));
  return made;
};
const code = (text) => element("code", text);
const json = (value) => element("pre", JSON.stringify(value, null, 2));
const fold = (title, ...children) => {
  const folded = element("details", element("summary", ...title));
  // Made when it is opened: the documents are long.
  folded.addEventListener("toggle", () => folded.append(...children.splice(0).flatMap((make) => make())), { once: true });
  return folded;
};

// What a reference stands for.
const found = (whole, value) => {
  if (!value?.$ref) return value;
  const names = value.$ref.split("/").slice(1).map((name) => name.replace(/~1/g, "/").replace(/~0/g, "~"));
  return names.reduce((at, name) => at?.[name], whole);
};

// A schema with everything that it refers to in its place, once on each way down.
const whole = (doc, schema, seen = []) => {
  if (Array.isArray(schema)) return schema.map((one) => whole(doc, one, seen));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref && !seen.includes(schema.$ref)) {
    const { $ref, ...rest } = schema;
    return whole(doc, { ...found(doc, schema), ...rest }, [...seen, $ref]);
  }
  return Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, whole(doc, value, seen)]));
};

const contents = (doc, content) =>
  Object.entries(content ?? {}).flatMap(([type, { schema, examples }]) => [
    element("h3", type),
    ...Object.values(examples ?? {}).map((example) => json(example.value)),
    ...(Object.keys(schema ?? {}).length ? [fold(["Schema"], () => [json(whole(doc, schema))])] : []),
  ]);

const parameters = (list) => {
  const rows = list.map(({ in: place, name, required, description, schema }) =>
    element("tr", element("td", code(name)), element("td", place + (required ? ", required" : "")),
      element("td", description ?? "", " ", code(JSON.stringify(schema)))));
  return element("table", element("tbody", ...rows));
};

const operation = (doc, path, method, { summary, description, parameters: list, requestBody, responses, security }) =>
  fold([code(`${method.toUpperCase()} ${path}`), ` ${summary}`], () => [
    ...(description ? [element("p", description)] : []),
    ...(security ? [element("p", "Authorization: Bearer, of: ", security.flatMap(Object.keys).join(" or "))] : []),
    ...(list ? [element("h3", "Parameters"), parameters(list)] : []),
    ...(requestBody ? [element("h3", requestBody.required ? "Body" : "Body, may be left out"), ...contents(doc, requestBody.content)] : []),
    element("h3", "Answers"),
    ...Object.entries(responses).map(([status, response]) => {
      const answer = found(doc, response);
      return fold([code(status), ` ${answer.description}`], () => contents(doc, answer.content));
    }),
  ]);

const rest = (doc) => {
  const byTag = new Map();
  for (const [path, methods] of Object.entries(doc.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const tag = one.tags[0];
      byTag.set(tag, [...(byTag.get(tag) ?? []), operation(doc, path, method, one)]);
    }
  }
  const sent = Object.entries(doc.webhooks ?? {}).flatMap(([name, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(doc, name, method, one)));
  return [element("h2", "REST API"), element("p", doc.info.description),
    ...[...byTag].flatMap(([tag, all]) => [element("h3", tag), ...all]),
    element("h3", "What webhooks are sent"), ...sent];
};

const socket = (doc) => {
  const of = (side) => Object.entries(doc.components.messages).filter(([name]) => name.startsWith(side))
    .map(([, { name, summary, payload }]) => fold([code(name), ` ${summary ?? ""}`], () => [json(whole(doc, payload))]));
  const closes = doc["x-close-codes"].map(({ code: number, word, then }) =>
    element("tr", element("td", code(String(number))), element("td", word), element("td", then)));
  return [element("h2", "Socket"), element("p", doc.info.description),
    element("h3", "From the client"), ...of("client."), element("h3", "From the server"), ...of("server."),
    element("h3", "Why a connection ends, and what a client does then"), element("table", element("tbody", ...closes))];
};

const show = async (id, path, render) => {
  const place = document.getElementById(id);
  try {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`${path} was answered ${answer.status}`);
    place.replaceChildren(...render(await answer.json()));
  } catch (error) {
    place.textContent = `${path} cannot be shown: ${error.message}`;
  }
};

show("rest", "/openapi.json", rest);
show("socket", "/asyncapi.json", socket);
