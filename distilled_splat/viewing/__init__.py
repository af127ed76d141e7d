"""The splat viewer in the browser: reads splats, finds a good first camera, and renders for each visitor."""
