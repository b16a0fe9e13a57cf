"""Switches: what the user toggled holds until the setting itself changes."""

from __future__ import annotations

from forelook.config import EditorConfig
from forelook_lsp.switches import Switches


def test_a_language_is_on_only_while_the_window_is() -> None:
    switches = Switches()
    switches.configure(EditorConfig(languages={"markdown": False}))
    assert (switches.is_on(), switches.is_on("python"), switches.is_on("markdown")) == (True, True, False)
    assert switches.toggle() is False
    assert switches.is_on("python") is False


def test_switching_a_language_on_switches_the_window_on() -> None:
    switches = Switches()
    switches.toggle()
    assert switches.toggle("python") is True
    assert switches.is_on()


def test_a_changed_setting_overrides_what_was_toggled_before() -> None:
    switches = Switches()
    switches.toggle()
    switches.toggle("python")
    switches.toggle("python")
    switches.configure(EditorConfig(languages={"rust": False}))
    assert (switches.is_on("python"), switches.is_on("rust")) == (True, False)
    switches.toggle()
    switches.configure(EditorConfig(enable=False, languages={"rust": False}))
    switches.configure(EditorConfig(enable=True, languages={"rust": False}))
    assert switches.is_on()
