/* What tests/audit.py asks of a page. */
({
  /* Every visible text: its colour, what is painted below it, and the contrast of both. */
  contrast: (root, limits) => {
    const numbers = (colour) => {
      const [r, g, b, a = 1] = (colour.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
      return colour === 'none' || colour === 'transparent' ? [0, 0, 0, 0] : [r, g, b, a];
    };
    const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a + below[i] * (1 - a));
    const light = (rgb) => {
      const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => {
      const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
      return (high + 0.05) / (low + 0.05);
    };
    const ground = (node) => {
      const layers = [];
      for (let it = node; it; it = it.parentElement) layers.unshift(numbers(getComputedStyle(it).backgroundColor));
      return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const painted = (svg, text) => {
      const box = text.getBoundingClientRect();
      const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      let below = ground(svg);
      for (const shape of svg.querySelectorAll('rect')) {
        const it = shape.getBoundingClientRect();
        const before = shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
        if (before && it.left <= x && x <= it.right && it.top <= y && y <= it.bottom) {
          below = over(numbers(getComputedStyle(shape).fill), below);
        }
      }
      return below;
    };
    const faults = [];
    let seen = 0;
    const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let text = walk.nextNode(); text; text = walk.nextNode()) {
      const node = text.parentElement;
      if (!text.data.trim() || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      if (['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(node.tagName)) continue;
      const style = getComputedStyle(node);
      const svg = node.closest('svg');
      const below = svg ? (style.stroke === 'none' ? painted(svg, node) : numbers(style.stroke).slice(0, 3)) : ground(node);
      const ink = over(numbers(svg ? style.fill : style.color), below);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      seen += 1;
      const found = contrast(ink, below);
      if (found < (large ? limits[1] : limits[0])) {
        faults.push(`${text.data.trim().slice(0, 30)}: ${found.toFixed(2)}, ${ink.map(Math.round)} on ${below.map(Math.round)}`);
      }
    }
    return { seen, faults: [...new Set(faults)] };
  },

  /* Where the focus is, and whether an eye can see it. */
  focus: () => {
    const node = document.activeElement;
    if (!node || node === document.body) return null;
    const style = getComputedStyle(node);
    const box = node.getBoundingClientRect();
    return {
      name: (node.getAttribute('aria-label') || node.labels?.[0]?.textContent || node.textContent).trim().slice(0, 40),
      tag: node.tagName.toLowerCase(),
      visible: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
      onScreen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
      ring: style.outlineColor,
    };
  },

  /* How many elements move by themselves, or slide when they change. */
  moving: (root) => [root, ...root.querySelectorAll('*')].filter((node) => {
    const style = getComputedStyle(node);
    const times = `${style.transitionDuration}, ${style.animationDuration}`.split(', ').map(parseFloat);
    return style.scrollBehavior === 'smooth' || (times.some((t) => t > 0) && node.checkVisibility());
  }).length,
})
