// What a test asks of the notebook that is open in JupyterLab.
// JupyterLab takes cells that are out of view off the page, so everything is read from the notebook's own list of cells.
const lesson = {
  notebook: () => window.jupyterapp.shell.currentWidget.content,
  outputs: cell => (cell.model.type === 'code' ? cell.model.outputs.toJSON() : []),
  sources: type => lesson.notebook().widgets.filter(cell => cell.model.type === type),
  drawn: (node, selector, part) => [...node.querySelectorAll(selector)].filter(e => e.querySelector(part)).length,

  // What one cell should show, and what it does show.
  counts(cell) {
    const outputs = lesson.outputs(cell);
    const html = outputs.map(output => [output.data?.['text/html'] ?? ''].flat().join(''));
    const source = cell.model.type === 'markdown' ? cell.model.sharedModel.getSource() : '';
    return {
      figures: outputs.filter(output => output.data && 'application/vnd.plotly.v1+json' in output.data).length,
      figures_drawn: lesson.drawn(cell.node, '.jp-OutputArea .js-plotly-plot', '.main-svg'),
      widgets: html.filter(text => text.includes('class="cv-')).length,
      widgets_drawn: lesson.drawn(cell.node, '.jp-OutputArea div[class^=cv-]', 'canvas'),
      games: outputs.filter(output => output.data && 'application/vnd.jupyter.widget-view+json' in output.data).length,
      games_drawn: lesson.drawn(cell.node, '.jp-OutputArea .widget-vbox', 'svg'),
      details: source.split('<details').length - 1,
      details_drawn: lesson.drawn(cell.node, '.jp-MarkdownOutput details', 'summary'),
    };
  },

  // Over all cells, with the errors among the outputs and the worst contrast of a text in them.
  state() {
    const total = {errors: [], contrast: lesson.contrast()};
    for (const cell of lesson.notebook().widgets) {
      for (const [name, count] of Object.entries(lesson.counts(cell))) total[name] = (total[name] ?? 0) + count;
      const errors = lesson.outputs(cell).filter(output => output.output_type === 'error');
      total.errors.push(...errors.map(output => `${output.ename}: ${output.evalue}`));
    }
    return total;
  },

  // An error ends "run all": the cells after it keep no number.
  ended() {
    const code = lesson.sources('code').map(cell => cell.model).filter(model => model.sharedModel.getSource().trim());
    const failed = model => [...Array(model.outputs.length).keys()].some(i => model.outputs.get(i).type === 'error');
    return code.every(model => model.executionCount != null) || code.some(failed);
  },

  scroller: () => document.querySelector('.jp-NotebookPanel-notebook .jp-WindowedPanel-outer'),
  inView(cell) {
    if (!cell.node.isConnected) return false;
    const {top, bottom} = cell.node.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  },
  viewIsDrawn() {
    const view = lesson.notebook().widgets.filter(lesson.inView).map(lesson.counts);
    const kinds = ['figures', 'widgets', 'games', 'details'];
    return view.length > 0 && view.every(counts => kinds.every(kind => counts[kind] === counts[`${kind}_drawn`]));
  },
  atEnd() {
    const last = lesson.notebook().widgets.at(-1);
    const {scrollTop, clientHeight, scrollHeight} = lesson.scroller();
    const seen = last.node.isConnected && last.node.getBoundingClientRect().bottom <= window.innerHeight;
    return seen || scrollTop + clientHeight >= scrollHeight - 1;
  },

  // The smallest contrast (WCAG, 1 to 21) between a text of our own HTML and what lies behind it.
  contrast() {
    const parse = text => {
      const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
      return [r, g, b, a];
    };
    const over = ([r, g, b, a], behind) => [r, g, b].map((value, i) => value * a + behind[i] * (1 - a));
    const background = element => {
      if (!element) return [255, 255, 255];
      const colour = parse(getComputedStyle(element).backgroundColor);
      return colour[3] === 1 ? colour.slice(0, 3) : over(colour, background(element.parentElement));
    };
    const luminance = colour => {
      const [r, g, b] = colour.map(v => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const worst = [21];
    for (const cell of lesson.notebook().widgets) {
      // A picture has a ground of its own; what is switched off may be pale.
      const others = 'script, style, div[class^=cv-], svg, select, :disabled';
      for (const element of cell.node.querySelectorAll('.jp-OutputArea :is(.jp-RenderedHTML, .jupyter-widgets) *')) {
        const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        if (!hasText || !element.checkVisibility() || element.closest(others)) continue;
        const behind = background(element);
        const pair = [luminance(over(parse(getComputedStyle(element).color), behind)), luminance(behind)].sort();
        worst.push((Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05));
      }
    }
    return Math.min(...worst);
  },
};
window.lesson = lesson;
