"""`distilled-splat view`: show a splat in the browser, or two side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass
class View:
    """Show splats in the browser, rendered on a GPU or a CPU. Two splats appear side by side, with one camera."""

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Splats to show: files of any trainer or editor (.ply, .spz, .splat, .ksplat, .sog, .glb, .pt), or runs (folder or
    config.yml) of nerfstudio's splatfacto or of this package. Several splats must show one scene, in the same frame."""
    port: int = 7008
    """Port to listen on. 0: any free port."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets everybody in the network connect."""

    def run(self) -> None:
        """Serve until Ctrl-C.

        Raises:
            ValueError: if a splat cannot be read, nothing can be rendered here, or the port is in use.
        """
        import torch
        from rich.console import Console

        from distilled_splat.ops.render import rasterizer_for
        from distilled_splat.shrink.unit_frame import UnitFrame
        from distilled_splat.viewing.page import Page, free_port
        from distilled_splat.viewing.splats import names_of, read_all, shown
        from distilled_splat.viewing.start import find_start

        console = Console(soft_wrap=True, highlight=False)
        port = free_port(self.host, self.port)
        splats = read_all(self.splats)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rasterizer_for(device)  # in the main thread
        frame = UnitFrame.of([splat.gaussians for splat in splats])
        here = shown(splats, names_of(self.splats), frame, device)
        start = find_start(self.splats, splats, here, frame)
        page = Page(here, start, self.host, port)
        console.print(f"The first camera is {start.words}.", markup=False)
        console.print(f"Open http://{self.host}:{port} in a browser. Ctrl-C ends it.", markup=False)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            page.stop()
