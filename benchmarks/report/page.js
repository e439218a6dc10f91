// Draws the plots, and the network under the pointer: a group of four bars for each block.
"use strict";

const ROLES = ["pointwise weights", "pointwise activations", "depthwise weights", "depthwise activations"];
// Fewer bits are darker.
const SHADES = ["#08306b", "#2171b5", "#6baed6", "#c6dbef", "#f0f4f9"];
const NAMESPACE = "http://www.w3.org/2000/svg";

function shape(parent, name, attributes, text) {
  const node = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

function drawSubnet(box, title, blocks, bits) {
  const width = Math.max(340, 30 + blocks.length * 46);
  const most = Math.max(...blocks.map((block) => block[2]));
  box.replaceChildren();
  const heading = document.createElement("p");
  heading.textContent = title;
  box.appendChild(heading);
  const svg = shape(box, "svg", { viewBox: `0 0 ${width} 164`, width: width, role: "img" });
  svg.setAttribute("aria-label", title);
  blocks.forEach((block, i) => {
    const [stage, kernel, channels] = block;
    const height = 12 + 80 * Math.sqrt(channels / most);
    const left = 10 + i * 46;
    block.slice(3).forEach((width_, role) => {
      const level = bits.indexOf(width_);
      const colour = SHADES[Math.round((level * (SHADES.length - 1)) / Math.max(1, bits.length - 1))];
      const bar = shape(svg, "rect", {
        x: left + role * 9, y: 110 - height, width: 9, height: height, fill: colour, stroke: "#808080",
      });
      shape(bar, "title", {}, `${ROLES[role]}: ${width_} bits`);
      shape(svg, "text", {
        x: left + role * 9 + 4.5, y: 121, "font-size": 8, "text-anchor": "middle",
      }, width_);
    });
    const label = { x: left + 18, "font-size": 9, "text-anchor": "middle" };
    shape(svg, "text", { ...label, y: 134 }, `${kernel}x${kernel}`);
    shape(svg, "text", { ...label, y: 146 }, channels);
    shape(svg, "text", { ...label, y: 158 }, `stage ${stage + 1}`);
  });
  const caption = document.createElement("p");
  caption.className = "note";
  caption.textContent = `Four bars a block, darker with fewer bits: ${ROLES.join(", ")}. Height: channels.`;
  box.appendChild(caption);
}

function show(plot, box, data) {
  return (event) => {
    const found = event.points.find((point) => point.customdata !== undefined);
    if (!found) return;
    const network = data.networks[found.customdata];
    drawSubnet(box, network.title, network.blocks, data.bits);
  };
}

for (const plot of document.querySelectorAll(".plot")) {
  const data = JSON.parse(document.getElementById(`${plot.id}-data`).textContent);
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  Plotly.newPlot(plot, data.traces, data.layout, options);
  const box = document.getElementById(`${plot.id}-subnet`);
  if (box !== null) {
    plot.on("plotly_hover", show(plot, box, data));
    plot.on("plotly_click", show(plot, box, data));
  }
}
document.documentElement.dataset.ready = "yes";
