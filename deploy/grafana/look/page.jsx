// The dashboard as Grafana lays it out, drawn by Grafana's own panel components. `LOOK` has the dashboard and its data.
import {
  EventBusSrv, FALLBACK_COLOR, FieldType, createTheme, dateTime, fieldMatchers, getDisplayProcessor, getFieldDisplayName, reduceField,
} from "@grafana/data";
import { BigValue, PanelChrome, PanelContextProvider, ThemeContext, TimeSeries } from "@grafana/ui";
import { createRoot } from "react-dom/client";

const { dashboard, from, to, step, series, width } = window.LOOK;
const theme = createTheme({ colors: { mode: "light" } });
const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: "now-6h", to: "now" } };
const COLUMNS = 24, CELL = 30, GAP = 8; // Grafana's grid

// What Grafana's timeseries panel takes where the dashboard says nothing.
const PLAIN = {
  lineInterpolation: "linear", gradientMode: "none", pointSize: 5, spanNulls: false, axisPlacement: "auto", axisColorMode: "text",
  axisBorderShow: false, barAlignment: 0, scaleDistribution: { type: "linear" }, thresholdsStyle: { mode: "off" },
  hideFrom: { tooltip: false, viz: false, legend: false }, lineStyle: { fill: "solid" },
};

function frames(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const steps = defaults.thresholds.steps.map((one) => ({ ...one, value: one.value ?? -Infinity }));
  const color = { mode: panel.type === "stat" ? "thresholds" : "palette-classic" };
  return series[panel.id].map(({ refId, name, labels, points }, number) => {
    const config = {
      color, ...defaults, thresholds: { ...defaults.thresholds, steps }, custom: { ...PLAIN, ...defaults.custom }, displayNameFromDS: name,
    };
    const time = { name: "Time", type: FieldType.time, config: { interval: step }, values: points.map(([at]) => at) };
    const value = { name: "Value", type: FieldType.number, labels, config, values: points.map(([, one]) => one), state: { seriesIndex: number } };
    const frame = { refId, name, length: points.length, fields: [time, value] };
    for (const { matcher, properties } of overrides) {
      if (fieldMatchers.get(matcher.id).get(matcher.options)(value, frame, [frame])) properties.forEach((one) => set(config, one));
    }
    for (const field of frame.fields) field.display = getDisplayProcessor({ field, theme, timeZone: "browser" });
    value.state.displayName = getFieldDisplayName(value, frame, [frame]);
    return frame;
  });
}

function set(config, { id, value }) {
  const [first, second] = id.split(".");
  if (second) config[first][second] = value;
  else config[first] = value;
}

function Stat({ panel, width, height }) {
  const [frame] = frames(panel);
  const { reduceOptions, colorMode, graphMode } = panel.options;
  const field = frame?.fields[1];
  const value = field ? field.display(reduceField({ field, reducers: reduceOptions.calcs })[reduceOptions.calcs[0]]) : { text: "No data", numeric: NaN, color: FALLBACK_COLOR };
  return <BigValue theme={theme} width={width} height={height} value={value} colorMode={colorMode} graphMode={graphMode} textMode="auto" justifyMode="auto" />;
}

function Lines({ panel, width, height }) {
  const found = frames(panel);
  if (!found.length) return <div style={{ width, height, display: "grid", placeItems: "center", color: theme.colors.text.secondary }}>No data</div>;
  const legend = { showLegend: true, calcs: [], ...panel.options.legend };
  return <TimeSeries frames={found} width={width} height={height} timeRange={range} timeZone="browser" legend={legend} options={panel.options} />;
}

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const column = (width - 2 * GAP + GAP) / COLUMNS;
  const place = { position: "absolute", left: GAP + x * column, top: GAP + y * (CELL + GAP) };
  const size = { width: Math.floor(w * column - GAP), height: h * (CELL + GAP) - GAP };
  if (panel.type === "row") return <div style={{ ...place, ...size, font: `500 ${theme.typography.h6.fontSize} ${theme.typography.fontFamily}`, paddingTop: 6 }}>{panel.title}</div>;
  const Kind = panel.type === "stat" ? Stat : Lines;
  return (
    <div style={place}>
      <PanelChrome title={panel.title} padding={panel.type === "stat" ? "none" : "md"} {...size}>{(innerWidth, innerHeight) => <Kind panel={panel} width={innerWidth} height={innerHeight} />}</PanelChrome>
    </div>
  );
}

document.head.append(Object.assign(document.createElement("style"), { textContent: "*, *::before, *::after { box-sizing: border-box }" })); // as in Grafana
document.body.style.cssText = `margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary}; font: ${theme.typography.fontSize}px ${theme.typography.fontFamily}`;
const context = { eventsScope: "global", eventBus: new EventBusSrv(), sync: () => 0, canAddAnnotations: () => false };
createRoot(document.getElementById("page")).render(
  <ThemeContext.Provider value={theme}>
    <PanelContextProvider value={context}>{dashboard.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}</PanelContextProvider>
  </ThemeContext.Provider>,
);
