"""From JSON lines of benches to figures, plots and the page docs/performance.md."""
