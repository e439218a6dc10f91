"""Checkpoints that do not stop a training: written by a thread, from a copy."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from torch import Tensor

from apq_moo.supernet.checkpoint import save_tensors


class Saving:
    """Writes files one at a time while its context goes on, and the last one before it ends.

    Files are replaced as a whole, so that a process which is killed leaves the one before.
    """

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a file is being written."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        """Begin to write a file; what becomes of the tensors afterwards does not matter.

        Raises:
            UserError: the file before this one could not be written.
        """
        self.finish()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        self._thread = Thread(target=self._write, args=(path, copies, header))
        self._thread.start()

    def finish(self) -> None:
        """Wait for the file that is being written, if one is.

        Raises:
            UserError: it could not be written; this is said once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self, path: str | Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
        try:
            save_tensors(path, tensors, header)
        except Exception as error:  # raised where it is heard
            self._error = error

    def __enter__(self) -> Saving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except Exception:
            if kind is None:  # else what ended the training matters more
                raise
