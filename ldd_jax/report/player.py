"""The denoising player: plain JavaScript over embedded data, no library, no network.

Text reaches the page through `textContent` only, so that no token can become markup.
"""

STYLE = """
:root{--ink:#1b1f24;--line:#d5dae0;--soft:#f6f8fa}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);margin:2em auto;max-width:1180px;
padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid var(--line);
padding:3px 9px;text-align:right}td:first-child,th:first-child{text-align:left}
img{max-width:100%}pre{white-space:pre-wrap;background:var(--soft);padding:6px;margin:3px 0}
.texts td{text-align:left;vertical-align:top;white-space:pre-wrap}
.note{color:#57606a;font-size:13px}
.controls{display:flex;gap:.8em;align-items:center;flex-wrap:wrap;background:var(--soft);
padding:.6em .8em;border:1px solid var(--line);border-radius:6px}
.controls input[type=range]{flex:1;min-width:240px}
.panels{display:grid;grid-template-columns:1fr 1fr;gap:1em;margin-top:.8em}
.panel{border:1px solid var(--line);border-radius:6px;padding:.6em;min-width:0}
.tokens{font:15px/1.7 ui-monospace,monospace;word-break:break-all}
.tokens span{padding:1px 0;border-bottom:2px solid transparent;white-space:pre}
.tokens span.changed{border-bottom-color:#d1242f;font-weight:bold}
.tokens span.hidden{color:#8c959f}
canvas{width:100%;height:70px;margin-top:.5em;background:var(--soft)}
"""

MARKUP = """
<div class="controls">
<button id="play" type="button">play</button>
<label>step <output id="shown">0</output></label>
<input id="step" type="range" min="0" max="1" value="0" aria-label="step">
<label>sample <select id="row"></select></label>
<label><input id="heat" type="checkbox" checked> entropy</label>
</div>
<div class="panels">
<div class="panel" id="panel0"><select aria-label="left model"></select>
<div class="facts note"></div><div class="tokens"></div><canvas width="520" height="70"></canvas>
</div>
<div class="panel" id="panel1"><select aria-label="right model"></select>
<div class="facts note"></div><div class="tokens"></div><canvas width="520" height="70"></canvas>
</div>
</div>
<p class="note">Both sides begin with the same seed. Background: entropy of the prediction at a
position, before the step (darker = less sure). Underlined: changed in this step. Below: root mean
square of the latent by position, after the call.</p>
"""

SCRIPT = """
'use strict';
const runs = JSON.parse(document.getElementById('runs').textContent);
const byId = (id) => document.getElementById(id);
const slider = byId('step'), row = byId('row');
const panels = [0, 1].map((i) => byId('panel' + i));
const option = (select, text, value) => {
  const made = document.createElement('option');
  made.textContent = text;
  made.value = value;
  select.appendChild(made);
};
panels.forEach((panel, i) => {
  const select = panel.querySelector('select');
  runs.forEach((run, k) => option(select, run.label, k));
  select.value = String(Math.min(i, runs.length - 1));
  select.addEventListener('change', draw);
});
const rows = Math.min(...runs.map((run) => run.paths.length));
for (let i = 0; i < rows; i++) option(row, String(i), i);
slider.max = Math.max(...runs.map((run) => run.paths[0].tokens.length)) - 1;

function show(panel) {
  const run = runs[Number(panel.querySelector('select').value)];
  const path = run.paths[Number(row.value)];
  const step = Math.min(Number(slider.value), path.tokens.length - 1);
  const now = path.tokens[step], before = path.tokens[Math.max(step - 1, 0)];
  const entropy = step > 0 ? path.entropy[step - 1] : null;
  const box = panel.querySelector('.tokens');
  box.textContent = '';
  let changed = 0, masks = 0;
  now.forEach((token, i) => {
    const cell = document.createElement('span');
    const hidden = token === '[MASK]';
    cell.textContent = hidden ? '\\u00b7' : token.replace(/\\n/g, '\\u21b5');
    if (hidden) { cell.className = 'hidden'; masks += 1; }
    if (step > 0 && token !== before[i]) { cell.className = 'changed'; changed += 1; }
    const heat = entropy && entropy[i];
    if (byId('heat').checked && heat !== null && heat !== undefined) {
      cell.style.backgroundColor = 'rgba(9,105,218,' + Math.min(heat / 4, 0.75).toFixed(3) + ')';
      cell.title = heat.toFixed(2) + ' nats';
    }
    box.appendChild(cell);
  });
  panel.dataset.step = step;
  panel.dataset.changed = changed;
  panel.querySelector('.facts').textContent =
    'step ' + step + ' of ' + (path.tokens.length - 1) + ', ' + changed + ' changed, ' +
    masks + ' masked' + (step > path.ended ? ', ended after ' + path.ended : '');
  const canvas = panel.querySelector('canvas'), pen = canvas.getContext('2d');
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const norm = path.norm && step > 0 ? path.norm[step - 1] : null;
  if (!norm) return;
  const top = Math.max(...path.norm.flat().filter((v) => v !== null)), w = canvas.width;
  pen.fillStyle = '#8250df';
  norm.forEach((v, i) => {
    const high = (canvas.height - 4) * (v || 0) / (top || 1);
    pen.fillRect(i * w / norm.length, canvas.height - high, Math.max(w / norm.length - 1, 1), high);
  });
}
function draw() {
  byId('shown').textContent = slider.value;
  panels.forEach(show);
}
let timer = null;
byId('play').addEventListener('click', () => {
  if (timer !== null) {
    clearInterval(timer);
    timer = null;
    byId('play').textContent = 'play';
    return;
  }
  byId('play').textContent = 'stop';
  if (slider.value === slider.max) slider.value = 0;
  timer = setInterval(() => {
    if (slider.value === slider.max) { byId('play').click(); return; }
    slider.value = Number(slider.value) + 1;
    draw();
  }, 120);
});
slider.addEventListener('input', draw);
row.addEventListener('change', draw);
byId('heat').addEventListener('change', draw);
draw();
"""
