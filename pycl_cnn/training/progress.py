"""The progress bar of training. It costs next to nothing: text is made at every step, shown at most ten times a second."""

from __future__ import annotations

import sys
from types import TracebackType

LAYOUT = "{desc} {percentage:3.0f}%|{bar:10}| {elapsed}<{remaining}{postfix}"


class Progress:
    """A bar over the images of one epoch, on stderr. On what is no terminal it says little more than the end of each epoch."""

    def __init__(self, title: str, images: int, shown: bool) -> None:
        from tqdm import tqdm

        self._lively = sys.stderr.isatty()
        interval = 0.1 if self._lively else 30.0
        self._bar = tqdm(total=images, desc=title, disable=not shown, mininterval=interval, bar_format=LAYOUT, dynamic_ncols=True)

    def say(self, text: str) -> None:
        """Show `text` behind the bar, on a terminal at once."""
        self._bar.set_postfix_str(text, refresh=self._lively)

    def advance(self, images: int, text: str) -> None:
        """`images` more are done; `text` is shown when it is time."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(images)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.close()
