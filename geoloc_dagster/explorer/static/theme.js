// Runs before the first paint, so that a dark page is never white for a moment.
(() => {
  let stored = null;
  try { stored = localStorage.getItem('geoloc-theme'); } catch { /* storage may be forbidden */ }
  const dark = stored ? stored === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
