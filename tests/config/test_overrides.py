"""What users type, and what Hydra reads of it."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from convolt.config.overrides import can_be_read, format_override, override_values, quote_for_hydra, typed_keys


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.path=/photos (2)/größe", "/photos (2)/größe"),
        ("data.path=/a=b", "/a=b"),
        ("data.path=/it's/x", "/it's/x"),
        ("data.path=/a#b&c;d!", "/a#b&c;d!"),
        ("data.path='/a,b'", "/a,b"),
        ("data.path=/a\\,ü", "/a,ü"),
        ("data.path=~/photos", "/home/me/photos"),
        ("data.path='~/photos'", "/home/me/photos"),
        ("data.path=~/größe", "/home/me/größe"),
        ("data.path=/backup~", "/backup~"),
        ("data.path=2024", "2024"),
        ("data.path=.5", ".5"),
        ("data.path=null", None),
        ("data.path=${oc.env:X}/größe", "${oc.env:X}/größe"),
        ("data.classes=[3,7]", ["3", "7"]),
        ("data.classes=[Äpfel, 'Ö l', b c, null]", ["Äpfel", "Ö l", "b c", "null"]),
        ("+callbacks.x={a:1,b:größe}", {"a": 1, "b": "größe"}),
        ("resume=sweeps/optim.lr=0.1,seed=1", "sweeps/optim.lr=0.1,seed=1"),
        ("resume='~/a b'", "/home/me/a b"),
        ("hydra.run.dir=a,b(1)", "a,b(1)"),
        ("hydra.run.dir=runs/${now:%Y}", "runs/${now:%Y}"),
        ("optim.betas=[0.9,0.99]", [0.9, 0.99]),
        ("seed=3", 3),
        ("trainer.max_epochs=${oc.decode:${oc.env:EPOCHS}}", "${oc.decode:${oc.env:EPOCHS}}"),
        ("hydra.run.dir=", ""),
    ],
)
def test_a_value_is_read_as_it_was_meant(text: str, value: Any) -> None:
    assert override_values([text]) == {text.lstrip("+").partition("=")[0]: value}
    assert quote_for_hydra(quote_for_hydra(text)) == quote_for_hydra(text)


@pytest.mark.parametrize(
    ("text", "swept"),
    [
        ("data.path=/größe,/a=b", ["/größe", "/a=b"]),
        ("data.path=choice(~/a,ü)", ["/home/me/a", "ü"]),
        ("optim.lr=0.1,0.2", [0.1, 0.2]),
        ("seed=range(0,4,step=2)", [0, 2]),
    ],
)
def test_a_sweep_stays_one(text: str, swept: list[Any]) -> None:
    override = OverridesParser.create().parse_override(quote_for_hydra(text))
    assert [getattr(value, "text", value) for value in override.sweep_iterator()] == swept


@pytest.mark.parametrize(
    "text", ["optim=adam", "~optim", "+a.b=[x y,{c:d}]", "model=glob(*)", "optim.lr=${a.b}", "nonsense"]
)
def test_what_hydra_can_read_stays_as_it_is(text: str) -> None:
    assert quote_for_hydra(text) == text


def test_what_has_no_key_or_no_end_cannot_be_read() -> None:
    assert [can_be_read(text) for text in ("optim.lr=0.1", "optim.lr=0.1,", "=3", "a")] == [True, False, False, False]


@pytest.mark.parametrize("text", ["augmentation=[flip,", "optim.lr=${nope", "größe=3", "nonsense"])
def test_what_cannot_be_read_is_left_for_hydra_to_refuse(text: str) -> None:
    with pytest.raises(HydraException):
        override_values([text])


def test_keys_are_those_of_the_config() -> None:
    texts = ["+a.b=1", "++c=2", "~d.e", "optim@x=sgd", "f=[broken"]
    assert typed_keys(texts) == ["a.b", "c", "d.e", "optim@x", "f"]


@pytest.mark.parametrize("value", ["it's", "ü=,", "a\\", "", None, True, 1e-3, ["3", {"a": "b c"}], "${x}"])
def test_what_is_written_is_read_as_the_same_again(value: Any) -> None:
    assert override_values([format_override("key", value)]) == {"key": value}
