"use strict";
// Draws the charts from the figures in the page, again when scheme or width change; filters and sorts its tables.
(() => {
  const figures = JSON.parse(document.getElementById("charts").textContent);
  const byId = (id) => document.getElementById(id);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const redraws = [];
  const font = getComputedStyle(document.body).fontFamily; // text is measured by it
  const environments = Object.keys(figures.saved);
  const number = (digits) => (value) =>
    value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      text: of("text"), muted: of("muted"), line: of("line"), card: of("card"), dot: of("dot"),
      heat: [of("heat0"), of("heat1")], series: ["c1", "c2", "c3", "c4", "c5", "c6"].map(of),
    };
  };

  // `options(colours, width)` says what to draw; called anew whenever the colours or the width are others.
  const chart = (id, options) => {
    const element = byId(id);
    if (!element) return () => {};
    const drawn = echarts.init(element, null, { renderer: "svg" });
    const draw = () => {
      const c = colours();
      drawn.setOption({
        animation: false, color: c.series, backgroundColor: "transparent",
        textStyle: { fontFamily: font, color: c.text },
        ...options(c, element.clientWidth),
      }, true);
    };
    let width = element.clientWidth;
    new ResizeObserver(() => {
      if (element.clientWidth === width) return;
      width = element.clientWidth;
      drawn.resize();
      draw();
    }).observe(element);
    redraws.push(draw);
    draw();
    return draw;
  };

  const tooltip = (c, more) => ({
    confine: true, backgroundColor: c.card, borderColor: c.line, textStyle: { color: c.text, fontSize: 13 }, ...more,
  });
  const values = (c, more) => ({
    type: "value", axisLabel: { color: c.muted, formatter: number(2) }, splitLine: { lineStyle: { color: c.line } }, ...more,
  });
  const categories = (c, data, more) => ({
    type: "category", data, axisLabel: { color: c.muted, hideOverlap: true }, axisTick: { show: false },
    axisLine: { lineStyle: { color: c.line } }, ...more,
  });
  const legend = (c, show) => ({
    show, type: "scroll", top: 0, left: 0, padding: [5, 0], itemWidth: 14, itemHeight: 10, textStyle: { color: c.text },
    pageTextStyle: { color: c.text }, pageIconColor: c.text,
  });
  const grid = (more) => ({ left: 8, right: 16, top: 34, bottom: 14, containLabel: true, ...more });

  const byMonth = (what) => (c) => ({
    grid: grid(), legend: legend(c, environments.length > 1), xAxis: categories(c, figures.months), yAxis: values(c),
    tooltip: tooltip(c, { trigger: "axis", axisPointer: { type: "shadow" }, valueFormatter: number(1) }),
    series: environments.map((name) => ({
      name, type: "bar", stack: "all", barMaxWidth: 36, data: figures.saved[name][what],
      itemStyle: { borderColor: c.card, borderWidth: 1 },
    })),
  });
  chart("c-hours", byMonth("hours"));
  chart("c-usd", byMonth("usd"));

  // --- one DAG, or all of them: [month, successes, failures, unfinished, success %, average s, two changes] ---
  let shown = "";
  const column = (place, factor = 1) =>
    figures.dags[shown].map((row) => (row[place] == null ? null : row[place] * factor));
  const months = () => figures.dags[shown].map((row) => row[0]);
  const redrawDag = [
    chart("c-runs", (c) => ({
      grid: grid(), legend: legend(c, true), xAxis: categories(c, months()), yAxis: values(c),
      tooltip: tooltip(c, { trigger: "axis", axisPointer: { type: "shadow" } }),
      series: [["succeeded", 1, 0], ["failed", 2, 1], ["unfinished", 3, 5]].map(([name, place, colour]) => ({
        name, type: "bar", stack: "all", barMaxWidth: 28, data: column(place), color: c.series[colour],
        itemStyle: { borderColor: c.card, borderWidth: 1 },
      })),
    })),
    chart("c-success", (c) => ({
      grid: grid(), xAxis: categories(c, months()),
      yAxis: values(c, { max: 100, min: ({ min }) => Math.max(0, Math.floor((min - 2) / 10) * 10) }),
      tooltip: tooltip(c, { trigger: "axis", valueFormatter: (value) => `${number(1)(value)} %` }),
      series: [{ name: "success", type: "line", data: column(4), symbolSize: 7, lineStyle: { width: 2.5 }, color: c.series[2] }],
    })),
    chart("c-duration", (c) => ({
      grid: grid(), xAxis: categories(c, months()), yAxis: values(c, { min: 0 }),
      tooltip: tooltip(c, { trigger: "axis", valueFormatter: (value) => `${number(1)(value)} min` }),
      series: [{ name: "average", type: "line", data: column(5, 1 / 60), symbolSize: 7, lineStyle: { width: 2.5 }, color: c.series[0] }],
    })),
  ];

  chart("c-tasks", (c, width) => ({
    grid: grid({ top: 34, right: 56 }), xAxis: values(c, { axisLabel: { color: c.muted, hideOverlap: true } }),
    legend: legend(c, environments.length > 1 || new Set(figures.tasks.map((task) => task.environment)).size > 1),
    yAxis: categories(c, figures.tasks.map((task) => task.name.replace(" · ", width < 560 ? "\n" : " · ")), {
      inverse: true, axisLabel: { color: c.text, width: Math.min(280, width * 0.42), overflow: "truncate", lineHeight: 14 },
    }),
    tooltip: tooltip(c, { trigger: "item", valueFormatter: (value) => `${number(1)(value)} h` }),
    series: [...new Set(figures.tasks.map((task) => task.environment))].sort().map((name) => ({
      name, type: "bar", stack: "all", barMaxWidth: 18,
      data: figures.tasks.map((task) => (task.environment === name ? task.hours : null)),
      label: { show: true, position: "right", color: c.text, formatter: ({ value }) => (value == null ? "" : value.toFixed(1)) },
    })),
  }));

  // --- the week: hours across, days down; on a phone the other way round ---
  const days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
  const clock = [...Array(24).keys()].map((hour) => String(hour).padStart(2, "0"));
  const redrawWeek = chart("c-week", (c, width) => {
    const rows = figures.weeks[byId("week-of").value];
    const narrow = width < 560;
    const place = ([day, hour]) => (narrow ? [day, hour] : [hour, day]);
    const across = categories(c, narrow ? days : clock, { position: "top", axisLine: { show: false } });
    const down = categories(c, narrow ? clock : days, { inverse: true, axisLine: { show: false } });
    return {
      grid: grid({ top: 8, bottom: 56, right: 4 }), xAxis: across, yAxis: down,
      visualMap: {
        min: 0, max: Math.max(...rows.map((row) => row[2])) || 1, calculable: false, orient: "horizontal", left: 0,
        bottom: 0, inRange: { color: c.heat }, textStyle: { color: c.text }, seriesIndex: 0, itemHeight: 110,
        text: [`${number(1)(Math.max(...rows.map((row) => row[2])))} tasks`, "0"], precision: 1,
      },
      tooltip: tooltip(c, {
        formatter: ({ dataIndex, seriesIndex, data }) => {
          const row = seriesIndex ? data.row : rows[dataIndex];
          return `${days[row[0]]} ${clock[row[1]]}:00<br>${number(2)(row[2])} tasks, asleep in ${number(0)(100 * row[3])} % of weeks`;
        },
      }),
      series: [
        { type: "heatmap", data: rows.map((row) => [...place(row), row[2]]), itemStyle: { borderColor: c.card, borderWidth: 2, borderRadius: 3 } },
        {
          type: "scatter", symbolSize: 6, color: c.dot,
          data: rows.filter((row) => row[3] > 0.5).map((row) => ({ value: place(row), row })),
        },
      ],
    };
  });
  byId("week-of")?.addEventListener("change", redrawWeek);

  chart("c-compared", (c, width) => ({
    grid: grid({ left: 20, right: 24 }), legend: legend(c, true), xAxis: values(c, { axisLabel: { color: c.muted, hideOverlap: true } }),
    yAxis: categories(c, figures.compared.dags, {
      inverse: true, axisLabel: { color: c.text, width: Math.min(220, width * 0.42), overflow: "truncate" },
    }),
    tooltip: tooltip(c, { trigger: "axis", axisPointer: { type: "shadow" }, valueFormatter: (value) => `${number(1)(value)} min` }),
    series: Object.entries(figures.compared.seconds).map(([name, seconds]) => ({
      name, type: "bar", barMaxWidth: 12, data: seconds.map((value) => (value == null ? null : value / 60)),
    })),
  }));

  dark.addEventListener("change", () => redraws.forEach((draw) => draw()));

  // --- a DAG is chosen: its name in a table, or in the list ---
  const minus = (text) => text.replace("-", "−");
  const signed = (value, digits) => (value == null ? "–" : minus(`${value < 0 ? "" : "+"}${value.toFixed(digits)}`));
  const show = (name) => {
    shown = name;
    byId("dag").value = name;
    byId("shown-name").textContent = name || "All DAGs";
    byId("dag-shown").textContent = `The charts show ${name || "all DAGs"}.`;
    byId("t-shown").tBodies[0].replaceChildren(...figures.dags[name].map((row) => {
      const line = document.createElement("tr");
      const texts = [
        row[0], ...row.slice(1, 4).map(number(0)), row[4] == null ? "–" : `${row[4].toFixed(1)} %`, signed(row[6], 1),
        row[5] == null ? "–" : `${number(1)(row[5])} s`, row[7] == null ? "–" : `${signed(row[7], 1)} s`,
      ];
      const numbers = [null, row[1], row[2], row[3], row[4], row[6], row[5], row[7]];
      line.append(...texts.map((text, place) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (place) cell.className = "n";
        if (place) cell.dataset.v = numbers[place] ?? "";
        return cell;
      }));
      return line;
    }));
    redrawDag.forEach((draw) => draw());
  };
  byId("dag")?.addEventListener("change", (event) => show(event.target.value));
  document.addEventListener("click", (event) => {
    if (!event.target.matches("button.pick")) return;
    show(`${event.target.closest("tr").cells[0].textContent} / ${event.target.textContent}`);
    byId("dag").focus();
    byId("h-dags").scrollIntoView();
  });

  // --- the filter ---
  const filtered = ["t-dags", "t-all-dags"].map(byId).filter(Boolean);
  byId("filter")?.addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const table of filtered) {
      for (const row of table.tBodies[0].rows) row.hidden = !row.cells[1].textContent.toLowerCase().includes(wanted);
    }
    const rows = [...filtered[0].tBodies[0].rows];
    byId("filtered").textContent = wanted ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });

  // --- sorting: the heading of a column is a button ---
  const value = (row, place) => {
    const cell = row.cells[place];
    if (!("v" in cell.dataset)) return cell.textContent;
    const known = cell.dataset.v;
    return cell.classList.contains("n") ? (known === "" ? -Infinity : Number(known)) : known;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.id.startsWith("t-week-")) continue;
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].map((row) => [value(row, place), row]);
        rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }
})();
