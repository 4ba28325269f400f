(() => {
  "use strict";
  const of = id => document.getElementById(id);
  const data = JSON.parse(of("data").textContent), LEVELS = data.levels;
  const [bar, tip, strips, near, search] = ["bar", "tip", "strips", "near", "search"].map(of);
  const [pickTrack, pickItem, pickCell, pickRight] = ["track", "item", "cell", "right"].map(of);
  const make = (name, kind, text) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const drawn = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const number = x => x === null || x === undefined ? "–" : String(+x.toPrecision(3)).replace("-", "\u2212");
  const signed = x => x > 0 ? "+" + number(x) : number(x);
  let shown = [], at = 0, track = 0, chosen = null, cards = [];

  const level = (x, t) => x === null || x === undefined ? 0 :
    Math.max(t.low ? -LEVELS : 0, Math.min(LEVELS, Math.round(LEVELS * (x - t.centre) / t.reach)));
  const step = n => (n < 0 ? "n" : "p") + Math.abs(n);
  const query = card => chosen && chosen.card === card ? chosen.k : card.strip.tokens.length - 1;
  const scoreAt = (card, k) => {
    const score = card.strip.values[track].score;
    return data.tracks[track].pattern ? score[query(card)][k] : score[k];
  };

  const words = (card, k) => {
    const t = data.tracks[track], v = card.strip.values[track], x = scoreAt(card, k), out = [];
    const place = k + card.strip.first;
    out.push((place < 0 ? "last token of the prompt" : "token " + place) + (card.strip.spans[place] ? ", end of " + card.strip.spans[place].replaceAll("_", " ") : ""));
    if (t.pattern) {
      const q = query(card);
      out.push(k > q ? "after the chosen token" : number(x) + " of the attention of token " + (q + card.strip.first));
      out.push(t.reference + ": " + number(v.ref[q]));
      if (v.notes && v.notes[q]) out.push(v.notes[q]);
      return out;
    }
    out.push(t.unit + ": " + signed(x));
    if (v.ref) out.push(t.reference + ": " + signed(v.ref[k]) + (v.lo ? ", 95 % " + signed(v.lo[k]) + " to " + signed(v.hi[k]) : ""));
    if (v.rank && v.rank[k] !== null) out.push("rank " + v.rank[k] + " of " + (v.controls + 1) + " (" + v.controls + " control directions)");
    if (v.notes && v.notes[k]) out.push(v.notes[k]);
    return out;
  };

  const paint = card => {
    const t = data.tracks[track], text = search.value.toLowerCase();
    card.spans.forEach((span, k) => {
      const hit = text && card.strip.tokens[k].toLowerCase().includes(text);
      const end = card.strip.spans[k + card.strip.first] !== undefined;
      const mine = chosen && chosen.card === card && chosen.k === k;
      span.className = step(level(scoreAt(card, k), t)) + (hit ? " hit" : "") + (end ? " end" : "") + (mine ? " chosen" : "");
    });
    curve(card);
  };

  const curve = card => {
    card.curve.replaceChildren();
    const t = data.tracks[track], v = card.strip.values[track], n = card.strip.tokens.length;
    card.curve.style.display = t.pattern || n < 3 ? "none" : "";
    if (t.pattern || n < 3) return;
    const known = [...v.score, ...(v.lo || []), ...(v.hi || []), t.centre].filter(x => x !== null);
    const low = Math.min(...known), high = Math.max(...known), range = high - low || 1;
    const x = k => 1000 * k / (n - 1), y = s => 62 - 60 * (s - low) / range;
    if (v.lo) {
      const there = [...v.lo.keys()].filter(k => v.lo[k] !== null);
      const edge = [...there.map(k => x(k) + "," + y(v.hi[k])), ...there.reverse().map(k => x(k) + "," + y(v.lo[k]))];
      card.curve.append(drawn("polygon", {class: "band", points: edge.join(" ")}));
    }
    card.curve.append(drawn("line", {class: "zero", x1: 0, x2: 1000, y1: y(t.centre), y2: y(t.centre)}));
    const line = [...v.score.keys()].filter(k => v.score[k] !== null).map(k => x(k) + "," + y(v.score[k]));
    card.curve.append(drawn("polyline", {class: "line", points: line.join(" ")}));
    if (chosen && chosen.card === card) card.curve.append(drawn("line", {class: "at", x1: x(chosen.k), x2: x(chosen.k), y1: 0, y2: 64}));
  };

  const choose = (card, k) => {
    chosen = card === null ? null : {card, k};
    cards.forEach(paint);
    near.hidden = chosen === null;
    near.replaceChildren();
    if (chosen === null) return;
    const t = data.tracks[track], v = card.strip.values[track];
    near.append(make("h3", "", card.strip.member + ", around token " + (k + card.strip.first)));
    const table = make("table", "data"), head = table.createTHead().insertRow(), body = table.createTBody();
    ["token", "text", t.unit, t.reference, "rank", v.notes ? "notes" : ""].forEach(text => head.append(make("th", "", text)));
    for (let i = Math.max(0, k - 5); i < Math.min(card.strip.tokens.length, k + 6); i++) {
      const row = body.insertRow(), rank = v.rank ? v.rank[i] + " of " + (v.controls + 1) : "";
      if (i === k) row.className = "here";
      const reference = t.pattern ? v.ref[k] : v.ref ? v.ref[i] : null;
      [i + card.strip.first, card.strip.tokens[i].replaceAll("\n", "↵"), number(scoreAt(card, i)), v.ref ? number(reference) : "", rank, v.notes && !t.pattern ? v.notes[i] : ""]
        .forEach(text => { row.insertCell().textContent = text; });
    }
    near.append(table);
  };

  const show = () => {
    chosen = null;
    near.hidden = true;
    cards = [];
    strips.replaceChildren();
    const item = shown[at];
    of("name").textContent = item ? item.id + (item.cell ? " · " + item.cell.replaceAll("_", " ") : "") : "No item fits";
    of("count").textContent = item ? (at + 1) + " of " + shown.length + " items" : "0 of " + data.items.length + " items";
    if (!item) return;
    pickItem.value = data.items.indexOf(item);
    item.strips.forEach(strip => {
      const box = make("section", "strip"), head = make("h3");
      const dot = make("span", "dot " + (["heuristic", "base"].includes(strip.member) ? strip.member : ""));
      head.append(dot, strip.member);
      if (strip.right !== null) head.append(make("span", strip.right ? "v v-right" : "v v-wrong", strip.right ? "right" : "wrong"));
      box.append(head, make("p", "facts", strip.facts.map(one => one.join(": ")).join(" · ")));
      if (strip.prompt) {
        const fold = make("details");
        fold.append(make("summary", "", "prompt"), make("pre", "", strip.prompt));
        box.append(fold);
      }
      const text = make("p", "tokens"), graph = drawn("svg", {class: "curve", viewBox: "0 0 1000 64", preserveAspectRatio: "none", "aria-hidden": "true"});
      const spans = strip.tokens.map(token => make("span", "", token.replaceAll("\n", "↵\n")));
      text.tabIndex = 0;
      text.append(...spans);
      box.append(graph, text);
      strips.append(box);
      const card = {strip, spans, curve: graph, text};
      cards.push(card);
      const under = event => spans.indexOf(event.target);
      text.addEventListener("mousemove", event => {
        const k = under(event);
        tip.hidden = k < 0;
        if (k < 0) return;
        tip.textContent = words(card, k).join("\n");
        const box = tip.getBoundingClientRect();
        tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - box.width - 8)) + "px";
        tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18) + "px";
      });
      text.addEventListener("mouseleave", () => { tip.hidden = true; });
      text.addEventListener("click", event => { if (under(event) >= 0) choose(card, under(event)); });
    });
    cards.forEach(paint);
  };

  const fits = item => {
    const right = item.strips.map(strip => strip.right).filter(one => one !== null), want = pickRight.value, text = search.value.toLowerCase();
    if (pickCell && pickCell.value && item.cell !== pickCell.value) return false;
    if (want === "right" && !(right.length && right.every(Boolean))) return false;
    if (want === "wrong" && right.every(Boolean)) return false;
    if (want === "apart" && new Set(right).size < 2) return false;
    return !text || item.id.toLowerCase().includes(text) || item.strips.some(strip => strip.tokens.join("").toLowerCase().includes(text));
  };
  const filter = () => {
    const before = shown[at];
    shown = data.items.filter(fits);
    at = Math.max(0, shown.indexOf(before));
    pickItem.replaceChildren(...shown.map(item => {
      const option = make("option", "", item.id + " " + item.strips.map(strip => strip.right === null ? "" : strip.right ? "✓" : "✗").join(""));
      option.value = data.items.indexOf(item);
      return option;
    }));
    show();
  };
  const go = by => { if (shown.length) { at = (at + by + shown.length) % shown.length; show(); } };
  const legend = () => {
    const t = data.tracks[track], from = t.low ? -LEVELS : 0, ramp = document.querySelector(".ramp");
    of("low").textContent = t.low;
    of("high").textContent = t.high;
    ramp.replaceChildren(...Array.from({length: LEVELS - from + 1}, (_, i) => make("i", step(i + from))));
    const known = data.items.flatMap(item => item.strips), marks = [];
    if (known.some(strip => strip.first < 0)) marks.push("▸ is the last token of the prompt");
    if (known.some(strip => Object.keys(strip.spans).length)) marks.push("a black bar stands behind the last token of a span, or in front of a decision");
    of("marks").textContent = marks.length ? marks.join("; ") + "." : "";
    of("marks").hidden = !marks.length;
    of("band").hidden = t.pattern || !data.items[0].strips[0].values[track].lo;
    of("scale").textContent = t.unit + ": no colour at " + number(t.centre) + ", full " + (t.low ? number(t.reach) + " away from it or more" : "at " + number(t.centre + t.reach) + " or more");
  };

  bar.addEventListener("submit", event => event.preventDefault());
  [pickCell, pickRight].filter(Boolean).forEach(select => select.addEventListener("change", filter));
  search.addEventListener("input", filter);
  pickItem.addEventListener("change", () => { at = shown.indexOf(data.items[+pickItem.value]); show(); });
  const changeTrack = to => { track = to; pickTrack.value = to; legend(); choose(chosen && chosen.card, chosen && chosen.k); };
  pickTrack.addEventListener("change", () => changeTrack(+pickTrack.value));
  of("back").addEventListener("click", () => go(-1));
  of("next").addEventListener("click", () => go(1));
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches && event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (event.key === "j") go(1);
    else if (event.key === "k") go(-1);
    else if (event.key === "t") changeTrack((track + 1) % data.tracks.length);
    else if (event.key === "/") { event.preventDefault(); search.focus(); }
    else if (event.key === "Escape") choose(null);
    else if (move && cards.length) {
      event.preventDefault();
      const card = chosen ? chosen.card : cards[0], last = card.strip.tokens.length - 1;
      choose(card, chosen ? Math.max(0, Math.min(last, chosen.k + move)) : move > 0 ? 0 : last);
    }
  });
  const root = document.documentElement, theme = of("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();
  pickRight.parentElement.hidden = data.items.every(item => item.strips.every(strip => strip.right === null));
  bar.hidden = false;
  of("keys").hidden = false;
  legend();
  filter();
})();
