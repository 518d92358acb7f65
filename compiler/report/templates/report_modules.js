// The outline: the model folded by module or by segment, with the values that go between what is visible, and the
// panel that says of one op where it runs, why, and what it is connected to.
const opTable = tables.find(table => table.name === "ops");
const column = name => opTable.columns.findIndex(([title]) => title === name);
const cellOf = (op, name) => column(name) < 0 ? null : opTable.rows[op][column(name)];
const deviceNames = tables.find(table => table.name === "devices").rows.map(row => row[0]);
const deviceOf = opTable.rows.map((_, op) => deviceNames.indexOf(cellOf(op, "device")));
const timeOf = opTable.rows.map((_, op) => cellOf(op, "time") ?? 0);
const colourOf = device => `d${device % COLOURS}`;
const users = opTable.rows.map(() => []), makers = opTable.rows.map(() => []);
for (let at = 0; at < outline.edges.length; at += 2) {
  users[outline.edges[at]].push(outline.edges[at + 1]);
  makers[outline.edges[at + 1]].push(outline.edges[at]);
}

const RUN = 50, ROW = 26, ARCS = 300;

// A node of the outline: a module, a run of its neighbours where there are too many to show, or one op.
function node(name, parent) {
  return { name, parent, children: [], byName: new Map(), ops: [], open: false };
}
function grown(by) {
  const root = node("", null);
  opTable.rows.forEach((_, op) => {
    let here = root;
    const path = by === "segment" ? [cellOf(op, "segment"), ...outline.paths[outline.at[op]]] : outline.paths[outline.at[op]];
    here.ops.push(op);
    for (const part of path) {
      let next = here.byName.get(part);
      if (!next) {
        next = node(part, here);
        here.byName.set(part, next);
        here.children.push(next);
      }
      here = next;
      here.ops.push(op);
    }
    const leaf = node(cellOf(op, "op"), here);
    leaf.op = op;
    leaf.ops.push(op);
    here.children.push(leaf);
  });
  folded(root);
  root.open = true;
  // What takes longest is open, until there is something to see.
  let shown = root.children;
  while (shown.length < 8) {
    const closed = shown.filter(child => child.op === undefined && !child.open);
    if (!closed.length) break;
    const longest = closed.reduce((best, child) => spent(child) > spent(best) ? child : best);
    longest.open = true;
    shown = visible(root, 1, []).map(([child]) => child);
  }
  return root;
}
const spent = entry => entry.ops.reduce((sum, op) => sum + timeOf[op], 0);
function folded(parent) {
  for (const child of parent.children) folded(child);
  parent.children = parent.children.map(child => {
    const only = child.children.length === 1 ? child.children[0] : null;
    if (!only || only.op !== undefined || child.op !== undefined) return child;
    only.name = `${child.name}/${only.name}`;
    only.parent = parent;
    return only;
  });
  if (parent.children.length <= RUN + 10) return;
  const runs = [];
  for (let at = 0; at < parent.children.length; at += RUN) {
    const part = parent.children.slice(at, at + RUN);
    const run = node(`${part[0].name} … ${part.at(-1).name}`, parent);
    for (const child of part) {
      child.parent = run;
      run.children.push(child);
      for (const op of child.ops) run.ops.push(op);
    }
    runs.push(run);
  }
  parent.children = runs;
}

const outlineBox = document.getElementById("outline"), list = document.getElementById("outline-rows");
const arcs = document.getElementById("outline-arcs");
let tree = grown("module"), rows = [], current = null;

function visible(parent, level, into) {
  for (const child of parent.children) {
    into.push([child, level]);
    if (child.open) visible(child, level + 1, into);
  }
  return into;
}
function bar(entry, longest) {
  const shares = deviceNames.map(() => [0, 0]);
  for (const op of entry.ops) {
    shares[deviceOf[op]][0] += timeOf[op];
    shares[deviceOf[op]][1] += 1;
  }
  const time = shares.reduce((sum, [seconds]) => sum + seconds, 0);
  const box = document.createElement("span");
  box.className = "share";
  const inside = make("span", box);
  inside.style.width = `${100 * time / longest}%`;
  shares.forEach(([seconds, count], device) => {
    if (!count) return;
    const piece = make("i", inside);
    piece.className = colourOf(device);
    piece.style.flexGrow = time > 0 ? seconds / time : count / entry.ops.length;
  });
  const names = shares.flatMap(([, count], device) => count ? [deviceNames[device]] : []);
  return [box, time, names.join(", ")];
}
function drawOutline(focus) {
  rows = visible(tree, 1, []);
  if (!rows.some(([entry]) => entry === current)) current = rows[0]?.[0] ?? null;
  const longestOf = new Map();
  for (const [entry] of rows) longestOf.set(entry.parent, Math.max(longestOf.get(entry.parent) ?? 1e-30, spent(entry)));
  list.replaceChildren(...rows.map(([entry, level], index) => {
    const line = document.createElement("div");
    line.setAttribute("role", "treeitem");
    line.setAttribute("aria-level", level);
    line.dataset.row = index;
    line.tabIndex = entry === current ? 0 : -1;
    if (entry.op === undefined) line.setAttribute("aria-expanded", entry.open);
    const name = make("span", line, entry.name);
    name.className = "what";
    name.style.paddingLeft = `${level * 16}px`;
    name.title = entry.name;
    if (entry.op !== undefined) make("small", name, ` ${cellOf(entry.op, "type")}`);
    const [box, time, devices] = bar(entry, longestOf.get(entry.parent));
    line.append(box);
    make("span", line, devices).className = "where";
    make("span", line, entry.op === undefined ? `${entry.ops.length} op${entry.ops.length > 1 ? "s" : ""}` : cellOf(entry.op, "segment")).className = "right";
    make("span", line, write.s(time)).className = "right";
    return line;
  }));
  drawArcs();
  if (focus) list.children[rows.findIndex(([entry]) => entry === current)]?.focus();
}
function drawArcs() {
  const rowOf = new Int32Array(opTable.rows.length).fill(-1);
  rows.forEach(([entry], index) => {
    if (!entry.open) for (const op of entry.ops) rowOf[op] = index;
  });
  const found = new Map();
  for (let at = 0; at < outline.edges.length; at += 2) {
    const [from, to] = [outline.edges[at], outline.edges[at + 1]];
    const [a, b] = [rowOf[from], rowOf[to]];
    if (a === b || a < 0 || b < 0) continue;
    const key = a * rows.length + b, old = found.get(key) ?? [a, b, 0, 0];
    old[2] += 1;
    old[3] += deviceOf[from] !== deviceOf[to];
    found.set(key, old);
  }
  const drawn = [...found.values()].sort((x, y) => y[3] - x[3] || y[2] - x[2]).slice(0, ARCS);
  const svg = (tag, attributes, parent) => {
    const made = document.createElementNS(arcs.namespaceURI, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent?.append(made);
    return made;
  };
  arcs.setAttribute("height", rows.length * ROW);
  arcs.replaceChildren(...drawn.map(([a, b, count, moves]) => {
    const [y1, y2] = [(a + 0.5) * ROW + 3, (b + 0.5) * ROW - 3];
    const wide = Math.min(104, 8 + 7 * Math.sqrt(Math.abs(b - a)) * 2);
    const group = svg("g", { class: moves ? "arrow moves" : "arrow stays" });
    svg("path", { d: `M2 ${y1}C${wide} ${y1} ${wide} ${y2} 6 ${y2}`, "marker-end": `url(#head-${moves ? "moves" : "stays"})` }, group);
    svg("title", {}, group).textContent = `${rows[a][0].name} → ${rows[b][0].name}: ${count} value${count > 1 ? "s" : ""}${moves ? `, ${moves} to another device` : ""}`;
    return group;
  }));
  const left = found.size - drawn.length;
  document.getElementById("outline-note").textContent = left > 0 ? `${left} more connections are not drawn` : "";
}
function turn(entry, open) {
  if (entry.op !== undefined) return;
  entry.open = open;
  drawOutline(true);
}
function chosen(entry) {
  current = entry;
  if (entry.op !== undefined) {
    drawOutline(true);
    tell(entry.op);
  } else {
    turn(entry, !entry.open);
  }
}
list.addEventListener("click", event => {
  const line = event.target.closest("[data-row]");
  if (line) chosen(rows[line.dataset.row][0]);
});
list.addEventListener("keydown", event => {
  const at = rows.findIndex(([entry]) => entry === current), entry = current;
  const go = index => { current = rows[Math.min(Math.max(index, 0), rows.length - 1)][0]; drawOutline(true); };
  const actions = {
    ArrowDown: () => go(at + 1),
    ArrowUp: () => go(at - 1),
    Home: () => go(0),
    End: () => go(rows.length - 1),
    ArrowRight: () => entry.open ? go(at + 1) : turn(entry, true),
    ArrowLeft: () => entry.open ? turn(entry, false) : entry.parent !== tree && go(rows.findIndex(([other]) => other === entry.parent)),
    Enter: () => chosen(entry),
    " ": () => chosen(entry),
  };
  if (!entry || !actions[event.key]) return;
  event.preventDefault();
  event.stopPropagation();
  actions[event.key]();
});
document.getElementById("outline-by").onchange = event => {
  tree = grown(event.target.value);
  drawOutline(false);
};
document.getElementById("outline-fold").onclick = () => {
  tree = grown(document.getElementById("outline-by").value);
  drawOutline(false);
};

const panel = document.getElementById("op-panel");
let cameFrom = null;
function tell(op) {
  if (panel.hidden) cameFrom = document.activeElement;
  panel.hidden = false;
  const body = document.getElementById("op-body");
  body.replaceChildren();
  make("h2", body, cellOf(op, "op")).id = "op-title";
  const path = outline.paths[outline.at[op]];
  make("p", body, `${cellOf(op, "type")}${path.length ? `, in ${path.join(" / ")}` : ""}`);
  const facts = make("dl", body);
  const fact = (name, text) => {
    if (text === null) return;
    make("dt", facts, name);
    make("dd", facts, text);
  };
  fact("runs on", `${cellOf(op, "device")} (${cellOf(op, "format")}) in ${cellOf(op, "segment")}${cellOf(op, "pinned") ? ", pinned" : ""}`);
  for (const name of ["time", "energy", "FLOPs", "bytes"]) {
    const kind = opTable.columns[column(name)]?.[1], value = cellOf(op, name);
    fact(name, value === null || value === undefined ? null : write[kind](value));
  }
  make("h3", body, "Elsewhere");
  const others = cellOf(op, "elsewhere") ?? [];
  if (others.length) fill(make("div", body), "others", others, timeOf[op]);
  else make("p", body, "There is no other place.");
  for (const [title, ends, there] of [["Reads from", makers[op], "from"], ["Read by", users[op], "to"]]) {
    make("h3", body, title);
    const items = make("ul", body);
    for (const other of ends.slice(0, 12)) {
      const button = make("button", make("li", items), cellOf(other, "op"));
      button.type = "button";
      button.onclick = () => tell(other);
      if (deviceOf[other] !== deviceOf[op]) make("span", button.parentElement, ` ${there} ${deviceNames[deviceOf[other]]}`).className = "moved";
    }
    if (ends.length > 12) make("li", items, `and ${ends.length - 12} more`);
    if (!ends.length) make("li", items, title === "Read by" ? "the model's outputs, or nothing" : "the model's inputs and constants");
  }
  panel.scrollTop = 0;
  panel.focus();
}
function closePanel() {
  panel.hidden = true;
  if (cameFrom?.isConnected) cameFrom.focus();
}
document.getElementById("op-close").onclick = closePanel;
document.addEventListener("keydown", event => { if (event.key === "Escape" && !panel.hidden) closePanel(); });

const named = new Map(opTable.rows.map((_, op) => [cellOf(op, "op"), op]));
drawOutline(false);
