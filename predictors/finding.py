"""Finding a predictor by name, among a space's assets, or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apq_moo.arrays import FloatArray, IntArray
from apq_moo.data.assets import SAMPLES, Assets, find_assets, predictor_file
from apq_moo.data.samples import load_samples
from apq_moo.errors import UserError
from apq_moo.files import is_file
from apq_moo.predictors.base import PREDICTORS, Predictor
from apq_moo.predictors.published import TORCH_SUFFIXES, load_published
from apq_moo.predictors.specification import create_predictor, is_specification
from apq_moo.predictors.storage import Arrays
from apq_moo.space import Space, embed, superspace


def load_predictor(path: str | Path, space: Space) -> Predictor:
    """Read a predictor that :meth:`Predictor.save` wrote, or a published torch checkpoint.

    Files ending in ``.pt``, ``.pth`` or ``.pth.tar`` are published checkpoints (see
    :func:`apq_moo.predictors.load_published`); any other says by its own header what it is.

    Raises:
        UserError: the file is missing, truncated, altered, unknown, or of another space.
    """
    if str(path).lower().endswith(TORCH_SUFFIXES):
        return load_published(path, space)
    return Predictor.load(path, space)


def fit_to_samples(name: str, space: Space, samples: str | Path, *, seed: int = 0) -> Predictor:
    """Fit a predictor to a sample table.

    Args:
        name: see :func:`create_predictor`.
        space: the space.
        samples: the file of the table.
        seed: of the fit.

    Raises:
        UserError: an unknown name or parameter, or an unusable table.
    """
    predictor = create_predictor(name, space, seed=seed)
    table = load_samples(samples, space)
    X_fp, y_fp = table.rows("fp")
    X, y = table.to_fit()
    return predictor.fit(X, y, X_fp=X_fp, y_fp=y_fp)


class SubspacePredictor(Predictor):
    """A predictor of the space that a space is part of, for that part's genotypes.

    Args:
        space: the part.
        of_whole: fitted to the whole space.
    """

    name = "part"

    def __init__(self, space: Space, of_whole: Predictor) -> None:
        super().__init__(space)
        self.of_whole = of_whole
        self.transfers, self.has_std = of_whole.transfers, of_whole.has_std
        self._pretrained, self._fitted = of_whole._pretrained, of_whole._fitted

    def _pretrain(self, X: IntArray, y: FloatArray) -> None:
        self.of_whole.pretrain(embed(self.space, X), y)

    def _fit(self, X: IntArray, y: FloatArray) -> None:
        self.of_whole.fit(embed(self.space, X), y)

    def _predict(self, X: IntArray) -> FloatArray:
        return self.of_whole.predict(embed(self.space, X))

    def _predict_std(self, X: IntArray) -> tuple[FloatArray, FloatArray]:
        return self.of_whole.predict(embed(self.space, X), return_std=True)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        raise UserError("a part's predictor is that of the whole space: save that one")

    def _restore(self, arrays: Arrays, settings: dict[str, Any]) -> None:
        raise NotImplementedError


def find_predictor(
    space: Space, predictor: str | Path, assets: str | Path | Assets | None = None
) -> Predictor:
    """Find a predictor.

    Args:
        space: the space.
        predictor: a name, which stands for the predictor that lies among the space's assets, or is
            fitted to the samples there; a name with parameters (see :func:`create_predictor`), of
            a predictor that is always fitted; or the path of a file.
        assets: a folder of assets; by default those shipped with the package.

    Raises:
        UserError: no such name or file, the space has no assets, or a file is damaged.
    """
    name = str(predictor)
    if not is_specification(name):
        if not is_file(predictor):
            known = ", ".join(PREDICTORS)
            raise UserError(f"unknown predictor {name!r}; known: {known}, or the path of a file")
        return load_predictor(predictor, space)
    if not isinstance(assets, Assets):
        assets = _assets(space, assets, name)
    if space.spec.part_of and not assets.has(SAMPLES):
        return SubspacePredictor(space, find_predictor(superspace(space), name))
    if assets.has(predictor_file(name)):
        return load_predictor(assets.path(predictor_file(name)), space)
    return fit_to_samples(name, space, assets.path(SAMPLES))


def _assets(space: Space, folder: str | Path | None, name: str) -> Assets:
    try:
        return find_assets(space, folder)
    except UserError as error:
        raise UserError(
            f"no predictor {name!r} for space {space.name!r}: give predictor=FILE, or {error}"
        ) from error
