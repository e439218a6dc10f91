"""Registries: names, duplicates and plug-ins."""

from importlib.metadata import EntryPoint

import pytest

from apq_moo.errors import UserError
from apq_moo.registry import Registry


@pytest.fixture
def plugins(monkeypatch):
    """Installed entry points, of any group; the list may be filled by the test."""
    installed: list[EntryPoint] = []

    def entry_points(*, group):
        return [point for point in installed if point.group == group]

    monkeypatch.setattr("apq_moo.registry.entry_points", entry_points)
    return installed


@pytest.fixture
def registry(plugins) -> Registry[object]:
    registry: Registry[object] = Registry("cost model")
    registry.register("zeta", 1)
    registry.register("alpha", 2)
    return registry


GROUP = "apq_moo.cost_models"


def test_items_by_name(registry):
    assert registry.get("zeta") == 1
    assert registry.get("alpha") == 2
    assert registry.names() == list(registry) == ["zeta", "alpha"]
    assert "alpha" in registry
    assert "beta" not in registry
    assert 3 not in registry


def test_the_decorator_returns_what_it_registers(registry):
    @registry.add("function")
    def function():
        return 5

    assert function() == 5
    assert registry.get("function") is function


def test_duplicates_are_refused(registry):
    with pytest.raises(ValueError, match="cost model 'alpha' is registered already"):
        registry.register("alpha", 3)
    with pytest.raises(ValueError, match="registered already"):
        registry.add("zeta")(4)
    assert registry.get("alpha") == 2


def test_unknown_names_are_answered_with_the_known_ones(registry, plugins):
    plugins.append(EntryPoint("extra", "json:dumps", GROUP))
    with pytest.raises(UserError) as caught:
        registry.get("beta")
    assert str(caught.value) == "unknown cost model 'beta'; known: zeta, alpha, extra"


def test_an_empty_registry(plugins):
    with pytest.raises(UserError, match="unknown cost model 'x'; known: none"):
        Registry("cost model").get("x")


def test_plugins_are_found_and_loaded_when_asked_for(registry, plugins):
    import json

    plugins += [
        EntryPoint("reader", "json:loads", GROUP),
        EntryPoint("broken", "no_such_module_at_all:thing", GROUP),
        EntryPoint("best", "json:dumps", GROUP),
        EntryPoint("stranger", "json:dumps", "apq_moo.predictors"),
    ]
    wanted = ["zeta", "alpha", "best", "broken", "reader"]
    assert registry.names() == wanted
    assert registry.get("reader") is json.loads
    assert registry.get("reader") is json.loads
    assert registry.names() == wanted
    assert "broken" in registry
    assert "stranger" not in registry


def test_a_plugin_is_loaded_once(registry, plugins, monkeypatch):
    plugins.append(EntryPoint("made", "json:dumps", GROUP))
    loads = []
    monkeypatch.setattr(EntryPoint, "load", lambda self: loads.append(self.name) or object())
    assert registry.get("made") is registry.get("made")
    assert loads == ["made"]


@pytest.mark.parametrize("value", ["no_such_module_at_all:thing", "json:no_such_name"])
def test_a_broken_plugin_is_named(registry, plugins, value):
    plugins.append(EntryPoint("broken", value, GROUP))
    with pytest.raises(UserError) as caught:
        registry.get("broken")
    owned = "cost model 'broken' is a plug-in of an unknown distribution that cannot be loaded"
    assert f"{owned} from {value}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_cannot_take_a_built_in_name(registry, plugins):
    plugins.append(EntryPoint("alpha", "json:dumps", GROUP))
    assert registry.get("alpha") == 2
    assert registry.names() == ["zeta", "alpha"]


def test_installed_entry_points_are_asked_for():
    # With nothing played, the real look-up answers for a group that nobody fills.
    assert Registry("thing that nobody offers").names() == []


def test_built_in_names_are_found_without_a_look_at_plug_ins(registry, monkeypatch):
    """Which takes milliseconds."""
    monkeypatch.setattr("apq_moo.registry.entry_points", None)
    assert "alpha" in registry
