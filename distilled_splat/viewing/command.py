"""`distilled-splat view`: show a splat in the browser, or two side by side, or write a page that shows them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import tyro


@dataclass
class View:
    """Show splats in the browser, rendered on a GPU or a CPU. Two splats appear side by side, with one camera.

    With --page, write a web page that shows them instead: one file, drawn by the visitor's own graphics processor.
    """

    splats: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Splats to show: files of any trainer or editor (.ply, .spz, .splat, .ksplat, .sog, .glb, .pt), or runs (folder or
    config.yml) of nerfstudio's splatfacto or of this package. Several splats must show one scene, in the same frame."""
    port: int = 7008
    """Port to listen on. 0: any free port."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 lets everybody in the network connect."""
    up: Literal["automatic", "y-down", "y-up", "z-up"] = "automatic"
    """Which way is up in the splat's coordinates, for the first camera and for turning. automatic: as in the photos of
    a run, or guessed from a file. Most files have y-down; those of ns-export have z-up."""
    page: Optional[Path] = None
    """Write this .html file instead of serving. The file holds the splats and a viewer, and fetches nothing. Open it in
    a browser, or put it on a web server."""

    def run(self) -> None:
        """Serve until Ctrl-C, or write the page.

        Raises:
            ValueError: if a splat cannot be read, nothing can be rendered here, the port is in use, or the page cannot
                be written.
        """
        import torch
        from rich.console import Console

        from distilled_splat.ops.render import rasterizer_for
        from distilled_splat.shrink.unit_frame import UnitFrame
        from distilled_splat.viewing.page import AS_FOUND, Page, free_port
        from distilled_splat.viewing.splats import names_of, read_all, shown
        from distilled_splat.viewing.start import UPS, find_start
        from distilled_splat.viewing.web_page import check_page, write_page

        console = Console(soft_wrap=True, highlight=False)
        port = self.port
        if self.page is None:
            port = free_port(self.host, self.port)
        else:
            check_page(self.page, self.splats)
        splats = read_all(self.splats)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rasterizer_for(device)  # in the main thread
        frame = UnitFrame.of([splat.gaussians for splat in splats])
        here = shown(splats, names_of(self.splats), frame, device)
        up = None if self.up == AS_FOUND else torch.tensor(UPS[self.up])
        start = find_start(self.splats, splats, here, frame, up)
        if self.page is not None:
            megabytes = write_page(self.page, here, start)
            console.print(f"The first camera is {start.words}.", markup=False)
            console.print(f"Written: {self.page} ({megabytes:.1f} MB)", markup=False)
            return
        page = Page(here, start, self.host, port)
        console.print(f"The first camera is {start.words}.", markup=False)
        console.print(f"Open http://{self.host}:{port} in a browser. Ctrl-C ends it.", markup=False)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            page.stop()
