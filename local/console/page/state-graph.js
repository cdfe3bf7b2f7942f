// A state machine's definition as a graph, and where each state is drawn. Pure: no document, no turn.
//
// Layers from the start downwards (longest path), edges that would go up again are drawn in lanes at the sides. A Map or
// a Parallel is a box around the graphs in it.

const NODE_HEIGHT = 28;
const ROW_GAP = 26;
const COLUMN_GAP = 18;
const LANE = 11;
const BOX_HEAD = 28;
const BOX_PADDING = 12;
const CORNER = 7;
/** How strongly the ends of an edge are drawn below each other: what is usual stands straight. */
const PULL = { next: 1, choice: 1, catch: 0.15, ofLongEdge: 0.15, straight: 6 };

/** `{nodes, edges}`: nodes `{name, type, comment, inner: graphs}`, edges `{from, to, kind}` (next, choice, catch). */
export function graphOf(definition) {
  const nodes = Object.entries(definition.States).map(([name, state]) => ({
    name,
    type: state.Type,
    comment: state.Comment ?? '',
    inner: innerMachines(state).map(graphOf),
  }));
  const edges = [];
  const seen = new Set();
  const add = (from, to, kind) => {
    const key = `${from}\n${to}`;
    if (!to || seen.has(key)) return;
    seen.add(key);
    edges.push({ from, to, kind });
  };
  for (const [name, state] of Object.entries(definition.States)) {
    for (const choice of state.Choices ?? []) add(name, choice.Next, 'choice');
    add(name, state.Next, 'next');
    add(name, state.Default, 'choice');
    for (const handler of state.Catch ?? []) add(name, handler.Next, 'catch');
  }
  return { start: definition.StartAt, nodes, edges };
}

function innerMachines(state) {
  if (state.Type === 'Map') return [state.ItemProcessor ?? state.Iterator];
  return state.Type === 'Parallel' ? state.Branches : [];
}

/**
 * `{width, height, nodes, edges}`: nodes `{name, type, comment, x, y, width, height, box}` of all levels, a box before
 * what is in it; edges `{from, to, kind, back, path, moved}` with an SVG path and where its origin is.
 */
export function layout(graph) {
  const sizes = new Map(graph.nodes.map((node) => [node.name, sizeOf(node)]));
  const back = backEdges(graph);
  const layers = layersOf(graph, back);
  const columns = withWaypoints(graph, back, layers);
  order(columns);
  place(columns, sizes);
  return drawn(graph, back, columns, sizes);
}

function sizeOf(node) {
  const label = Math.ceil(node.name.length * 6.3) + (node.type === 'Choice' ? 34 : 20);
  if (!node.inner.length) return { width: Math.max(74, label), height: NODE_HEIGHT, inner: [] };
  const inner = node.inner.map(layout);
  const width = inner.reduce((sum, part) => sum + part.width, COLUMN_GAP * (inner.length - 1)) + 2 * BOX_PADDING;
  const height = Math.max(...inner.map((part) => part.height)) + BOX_HEAD + BOX_PADDING;
  return { width: Math.max(width, label + 110), height, inner };
}

/** The edges that lead back to a state from which they can be reached. */
function backEdges(graph) {
  const back = new Set();
  const state = new Map();
  const outgoing = groupBy(graph.edges, (edge) => edge.from);
  const visit = (name) => {
    state.set(name, 'open');
    for (const edge of outgoing.get(name) ?? []) {
      if (state.get(edge.to) === 'open') back.add(edge);
      else if (!state.has(edge.to)) visit(edge.to);
    }
    state.set(name, 'done');
  };
  visit(graph.start);
  for (const node of graph.nodes) if (!state.has(node.name)) visit(node.name);
  return back;
}

function layersOf(graph, back) {
  const forward = graph.edges.filter((edge) => !back.has(edge));
  const layer = new Map(graph.nodes.map((node) => [node.name, 0]));
  // No path is longer than there are nodes, so this settles at the latest after as many rounds.
  for (let round = 0; round < graph.nodes.length; round += 1) {
    let moved = false;
    for (const { from, to } of forward) {
      if (layer.get(to) <= layer.get(from)) {
        layer.set(to, layer.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  return besideNoBox(graph, layer);
}

/** Gives the states that share a layer with a box a layer below it: beside it they would make the graph wide. */
function besideNoBox(graph, layer) {
  for (let at = 0; at <= Math.max(...layer.values()); at += 1) {
    const here = graph.nodes.filter((node) => layer.get(node.name) === at);
    const leaves = here.filter((node) => !node.inner.length);
    if (!leaves.length || leaves.length === here.length) continue;
    for (const node of graph.nodes) if (layer.get(node.name) > at) layer.set(node.name, layer.get(node.name) + 1);
    for (const node of leaves) layer.set(node.name, at + 1);
  }
  return layer;
}

/** The cells of each layer, in order: states, and a waypoint wherever a longer edge passes. Cells know their neighbours. */
function withWaypoints(graph, back, layer) {
  const columns = Array.from({ length: Math.max(...layer.values()) + 1 }, () => []);
  const cells = new Map();
  const cell = (name, at) => {
    const made = { name, layer: at, up: [], down: [], pull: new Map(), x: 0, width: 0 };
    columns[at].push(made);
    return made;
  };
  for (const name of inOrderOfReach(graph)) cells.set(name, cell(name, layer.get(name)));
  columns.chains = new Map();
  columns.cells = cells;
  for (const edge of graph.edges.filter((edge) => !back.has(edge))) {
    const chain = [cells.get(edge.from)];
    for (let at = layer.get(edge.from) + 1; at < layer.get(edge.to); at += 1) chain.push(cell(null, at));
    chain.push(cells.get(edge.to));
    for (let i = 1; i < chain.length; i += 1) {
      chain[i - 1].down.push(chain[i]);
      chain[i].up.push(chain[i - 1]);
      const pull = chain.length === 2 ? PULL[edge.kind] : chain[i - 1].name || chain[i].name ? PULL.ofLongEdge : PULL.straight;
      chain[i - 1].pull.set(chain[i], pull);
      chain[i].pull.set(chain[i - 1], pull);
    }
    columns.chains.set(edge, chain);
  }
  return columns;
}

function inOrderOfReach(graph) {
  const outgoing = groupBy(graph.edges, (edge) => edge.from);
  const seen = new Set([graph.start]);
  for (const name of seen) for (const edge of outgoing.get(name) ?? []) seen.add(edge.to);
  for (const node of graph.nodes) seen.add(node.name);
  return [...seen];
}

/** Sweeps over the layers with the mean of the neighbours' places, and keeps the order with the fewest crossings. */
function order(columns) {
  let best = columns.map((column) => [...column]);
  let fewest = crossings(columns);
  for (let sweep = 0; sweep < 8 && fewest > 0; sweep += 1) {
    const downwards = sweep % 2 === 0;
    for (const column of downwards ? columns.slice(1) : columns.slice(0, -1).reverse()) {
      const places = new Map();
      const around = columns[column[0].layer + (downwards ? -1 : 1)];
      around.forEach((neighbour, index) => places.set(neighbour, index));
      const mean = (cell) => {
        const near = downwards ? cell.up : cell.down;
        return near.length ? near.reduce((sum, other) => sum + places.get(other), 0) / near.length : column.indexOf(cell);
      };
      const keys = new Map(column.map((cell) => [cell, mean(cell)]));
      column.sort((a, b) => keys.get(a) - keys.get(b));
    }
    const now = crossings(columns);
    if (now < fewest) {
      fewest = now;
      best = columns.map((column) => [...column]);
    }
  }
  best.forEach((column, index) => columns[index].splice(0, Infinity, ...column));
}

function crossings(columns) {
  let found = 0;
  for (let at = 0; at + 1 < columns.length; at += 1) {
    const places = new Map(columns[at + 1].map((cell, index) => [cell, index]));
    const ends = columns[at].flatMap((cell) => cell.down.map((other) => places.get(other)).sort((a, b) => a - b));
    for (let i = 0; i < ends.length; i += 1) for (let j = i + 1; j < ends.length; j += 1) if (ends[i] > ends[j]) found += 1;
  }
  return found;
}

/** Gives each cell its x (of its middle): near its neighbours, without overlaps. */
function place(columns, sizes) {
  for (const column of columns) {
    let x = 0;
    for (const cell of column) {
      cell.width = cell.name ? sizes.get(cell.name).width : 8;
      cell.x = x + cell.width / 2;
      x += cell.width + COLUMN_GAP;
    }
  }
  for (let round = 0; round < 12; round += 1) {
    const downwards = round % 2 === 0;
    for (const column of downwards ? columns : [...columns].reverse()) {
      const wanted = column.map((cell) => {
        const near = (downwards ? cell.up : cell.down).length ? (downwards ? cell.up : cell.down) : [...cell.up, ...cell.down];
        return near.length ? mean(cell, near) : cell.x;
      });
      const distance = (i) => (column[i - 1].width + column[i].width) / 2 + COLUMN_GAP;
      const fromLeft = [...wanted];
      const fromRight = [...wanted];
      for (let i = 1; i < column.length; i += 1) fromLeft[i] = Math.max(fromLeft[i], fromLeft[i - 1] + distance(i));
      for (let i = column.length - 2; i >= 0; i -= 1) fromRight[i] = Math.min(fromRight[i], fromRight[i + 1] - distance(i + 1));
      column.forEach((cell, i) => { cell.x = (fromLeft[i] + fromRight[i]) / 2; });
      for (let i = 1; i < column.length; i += 1) column[i].x = Math.max(column[i].x, column[i - 1].x + distance(i));
    }
  }
  for (const chain of columns.chains.values()) straighten(chain.slice(1, -1), columns);
  const left = Math.min(...columns.flat().map((cell) => cell.x - cell.width / 2));
  for (const cell of columns.flat()) cell.x -= left;
}

/** Puts the waypoints of an edge below each other, at the place of one of them where all have room. */
function straighten(waypoints, columns) {
  const fits = (x) => waypoints.every((cell) => {
    const column = columns[cell.layer];
    const at = column.indexOf(cell);
    const gap = (other) => (other ? Math.abs(other.x - x) - (other.width + cell.width) / 2 : Infinity);
    const isBetween = (at === 0 || column[at - 1].x < x) && (at + 1 === column.length || column[at + 1].x > x);
    return isBetween && Math.min(gap(column[at - 1]), gap(column[at + 1])) >= COLUMN_GAP / 2;
  });
  const x = waypoints.map((cell) => cell.x).find(fits);
  if (x !== undefined) for (const cell of waypoints) cell.x = x;
}

/** Where a cell's neighbours want it. */
function mean(cell, near) {
  const pull = near.map((other) => cell.pull.get(other));
  return near.reduce((sum, other, i) => sum + pull[i] * other.x, 0) / pull.reduce((sum, one) => sum + one, 0);
}

function drawn(graph, back, columns, sizes) {
  const rowHeights = columns.map((column) => Math.max(NODE_HEIGHT, ...column.map((cell) => (cell.name ? sizes.get(cell.name).height : 0))));
  const rowTops = [];
  rowHeights.reduce((top, height, index) => { rowTops[index] = top; return top + height + ROW_GAP; }, 0);
  const right = Math.max(...columns.flat().map((cell) => cell.x + cell.width / 2));
  const height = rowTops.at(-1) + rowHeights.at(-1);
  const rect = (cell) => ({
    left: cell.x - cell.width / 2, right: cell.x + cell.width / 2, x: cell.x,
    top: rowTops[cell.layer], bottom: rowTops[cell.layer] + sizes.get(cell.name).height,
    first: columns[cell.layer][0] === cell, last: columns[cell.layer].at(-1) === cell,
  });
  const edges = [];
  for (const [edge, chain] of columns.chains) {
    const points = [[chain[0].x, rect(chain[0]).bottom]];
    for (const waypoint of chain.slice(1, -1)) points.push([waypoint.x, rowTops[waypoint.layer]], [waypoint.x, rowTops[waypoint.layer] + rowHeights[waypoint.layer]]);
    points.push([chain.at(-1).x, rect(chain.at(-1)).top]);
    edges.push({ ...edge, path: falling(points) });
  }
  const lanes = { left: 0, right: 0 };
  for (const edge of back) {
    const from = rect(columns.cells.get(edge.from));
    const to = rect(columns.cells.get(edge.to));
    const side = from.first && (to.first || !from.last) ? 'left' : from.last || from.x > right / 2 ? 'right' : 'left';
    lanes[side] += 1;
    const lane = side === 'left' ? -LANE * lanes.left : right + LANE * lanes.right;
    edges.push({ ...edge, back: true, path: rising(from, to, side, lane, lanes[side]) });
  }
  const shift = lanes.left * LANE + (lanes.left ? 4 : 0);
  const nodes = [];
  for (const node of graph.nodes) {
    const at = rect(columns.cells.get(node.name));
    const size = sizes.get(node.name);
    nodes.push({
      name: node.name, type: node.type, comment: node.comment, box: size.inner.length > 0,
      x: at.left + shift, y: at.top, width: size.width, height: size.height,
    });
    let x = at.left + shift + (size.width - size.inner.reduce((sum, part) => sum + part.width, COLUMN_GAP * (size.inner.length - 1))) / 2;
    for (const part of size.inner) {
      const move = [x, at.top + BOX_HEAD];
      nodes.push(...part.nodes.map((inner) => ({ ...inner, x: inner.x + move[0], y: inner.y + move[1] })));
      edges.push(...part.edges.map((inner) => ({ ...inner, moved: [(inner.moved?.[0] ?? 0) + move[0], (inner.moved?.[1] ?? 0) + move[1]] })));
      x += part.width + COLUMN_GAP;
    }
  }
  return {
    width: right + shift + lanes.right * LANE + (lanes.right ? 4 : 0),
    height,
    nodes,
    edges: edges.map((edge) => (edge.moved ? edge : { ...edge, moved: [shift, 0] })),
  };
}

/** A path through points that go down: straight where they stand below each other, curved where they do not. */
function falling(points) {
  let path = `M${points[0].map(round).join(' ')}`;
  for (let i = 1; i < points.length; i += 1) {
    const [x0, y0] = points[i - 1];
    const [x1, y1] = points[i];
    const middle = (y0 + y1) / 2;
    path += Math.abs(x0 - x1) < 0.5 ? `L${round(x1)} ${round(y1)}` : `C${round(x0)} ${round(middle)} ${round(x1)} ${round(middle)} ${round(x1)} ${round(y1)}`;
  }
  return path;
}

/** A path up again, in a lane beside the graph. Where another state stands between, it takes the gap below or above. */
function rising(from, to, side, lane, number) {
  const outer = (rect) => (side === 'left' ? rect.first : rect.last);
  const edge = (rect) => (side === 'left' ? rect.left : rect.right);
  const points = [];
  if (outer(from)) {
    points.push([edge(from), Math.min((from.top + from.bottom) / 2, from.top + 14)]);
  } else {
    const x = from.x + (side === 'left' ? -1 : 1) * 10;
    points.push([x, from.bottom], [x, from.bottom + 5 + 3 * number]);
  }
  const into = outer(to) ? (to.top + to.bottom) / 2 + 4 * (number - 1) * (number % 2 ? 1 : -1) : to.top - 5 - 3 * number;
  points.push([lane, points.at(-1)[1]], [lane, into]);
  if (outer(to)) points.push([edge(to), into]);
  else points.push([to.x + (side === 'left' ? -1 : 1) * 10, into], [to.x + (side === 'left' ? -1 : 1) * 10, to.top]);
  return rounded(points);
}

function rounded(points) {
  let path = `M${points[0].map(round).join(' ')}`;
  for (let i = 1; i + 1 < points.length; i += 1) {
    const radius = Math.min(CORNER, distance(points[i - 1], points[i]) / 2, distance(points[i], points[i + 1]) / 2);
    const before = towards(points[i], points[i - 1], radius);
    const after = towards(points[i], points[i + 1], radius);
    path += `L${before.map(round).join(' ')}Q${points[i].map(round).join(' ')} ${after.map(round).join(' ')}`;
  }
  return `${path}L${points.at(-1).map(round).join(' ')}`;
}

const distance = ([x0, y0], [x1, y1]) => Math.hypot(x1 - x0, y1 - y0);

function towards([x, y], target, length) {
  const far = distance([x, y], target) || 1;
  return [x + ((target[0] - x) * length) / far, y + ((target[1] - y) * length) / far];
}

const round = (value) => Math.round(value * 10) / 10;

function groupBy(values, key) {
  const groups = new Map();
  for (const value of values) {
    if (!groups.has(key(value))) groups.set(key(value), []);
    groups.get(key(value)).push(value);
  }
  return groups;
}
