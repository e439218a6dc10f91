// Draws the plots, and the network under the pointer: a group of four bars for each block.
"use strict";

const ROLES = ["pointwise weights", "pointwise activations", "depthwise weights", "depthwise activations"];
// Fewer bits are darker.
const SHADES = ["#08306b", "#2171b5", "#6baed6", "#c6dbef", "#f0f4f9"];
const NAMESPACE = "http://www.w3.org/2000/svg";
const BLOCK = 46; // pixels
const HEIGHT = 360; // of a plot without its legend
const MOST = 830; // at first, since plotly gives a legend half of it at most
const PRINTED = 640; // width on paper

function shape(parent, name, attributes, text) {
  const node = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

function element(parent, name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

function shade(bits, width) {
  return SHADES[Math.round((bits.indexOf(width) * (SHADES.length - 1)) / Math.max(1, bits.length - 1))];
}

function drawBlock(svg, block, left, most, bits) {
  const [stage, kernel, channels, ...widths] = block;
  const height = 12 + 80 * (channels / most);
  widths.forEach((width, role) => {
    const bar = shape(svg, "rect", {
      x: left + role * 9, y: 110 - height, width: 9, height: height, fill: shade(bits, width), stroke: "#808080",
    });
    shape(bar, "title", {}, `${ROLES[role]}: ${width} bits`);
    shape(svg, "text", {
      x: left + role * 9 + 4.5, y: 121, "font-size": 8, "text-anchor": "middle",
    }, width);
  });
  const label = { x: left + 18, "font-size": 10, "text-anchor": "middle" };
  shape(svg, "text", { ...label, y: 135 }, `${kernel}x${kernel}`);
  shape(svg, "text", { ...label, y: 148 }, channels);
  shape(svg, "text", { ...label, y: 161 }, `stage ${stage + 1}`);
}

function drawSubnet(box, title, blocks, bits) {
  box.replaceChildren();
  element(box, "p", "title", title);
  const width = 10 + blocks.length * BLOCK;
  const svg = shape(element(box, "div", "scroll", ""), "svg", {
    viewBox: `0 0 ${width} 166`, width: width, height: 166, role: "img", "aria-label": title,
  });
  const most = Math.max(...blocks.map((block) => block[2]));
  blocks.forEach((block, i) => drawBlock(svg, block, 10 + i * BLOCK, most, bits));
  const key = element(box, "p", "note key", "");
  for (const bit of bits) {
    element(key, "span", "swatch", "").style.background = shade(bits, bit);
    element(key, "span", "", `${bit} bits`);
  }
  element(box, "p", "note", `Four bars a block: ${ROLES.join(", ")}. Height: channels. Below: bits, kernel, channels, stage.`);
}

function show(plot, box, data) {
  return (event) => {
    const found = event.points.find((point) => point.customdata !== undefined);
    if (!found) return;
    const network = data.networks[found.customdata];
    drawSubnet(box, `${found.data.legendgroup}: ${network.title}`, network.blocks, data.bits);
  };
}

function read(name) {
  return JSON.parse(document.getElementById(name).textContent);
}

// The legend stands above the plot, which grows by it: a phone shows one or two names a line.
async function fit(plot) {
  const legend = plot.querySelector(".legend .bg");
  const height = HEIGHT + (legend === null ? 0 : Math.ceil(legend.getBBox().height));
  if (Math.abs(plot.clientHeight - height) < 2 && plot.layout.height === height) return;
  plot.style.height = `${height}px`;
  await Plotly.relayout(plot, { height: height }); // draws at once, which Plotly.Plots.resize does not
}

async function draw(plot) {
  const figure = read(`${plot.id}-data`);
  const box = document.getElementById(`${plot.id}-subnet`);
  const data = box === null ? null : read(`${plot.id.split("-")[0]}-networks`);
  for (const trace of figure.traces) {
    if (trace.customdata === undefined) continue;
    trace.text = trace.customdata.map((i) => data.networks[i].title.replaceAll(", ", "<br>"));
  }
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  await Plotly.newPlot(plot, figure.traces, { ...figure.layout, height: MOST }, options);
  await fit(plot);
  if (box === null) return;
  plot.on("plotly_hover", show(plot, box, data));
  plot.on("plotly_click", show(plot, box, data));
}

const plots = [...document.querySelectorAll(".plot")];
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => plots.forEach(fit), 300);
});
window.addEventListener("beforeprint", () => {
  for (const plot of plots) {
    Plotly.relayout(plot, { width: PRINTED, height: MOST });
    fit(plot);
  }
});
window.addEventListener("afterprint", () => {
  for (const plot of plots) Plotly.relayout(plot, { width: null, height: MOST }).then(() => fit(plot));
});
Promise.all(plots.map(draw)).then(() => {
  document.documentElement.dataset.ready = "yes";
});
