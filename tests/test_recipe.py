from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import RecipeError
from embedkit.recipe import (
    OneOf,
    as_table,
    build,
    differences,
    load_recipe,
    merged,
    preset_names,
    preset_text,
    read_preset,
)
from embedkit.training.engine.recipes import PretrainRecipe


@dataclass(frozen=True, kw_only=True)
class Oven:
    heat: float = 180.0
    fan: bool = False
    mode: Literal["top", "bottom"] = "top"
    racks: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.heat > 300:
            raise ValueError(f"heat is {self.heat}; it must be at most 300")


@dataclass(frozen=True, kw_only=True)
class Cake:
    minutes: int
    name: str = "plain"
    icing: str | None = None
    oven: Oven = field(default_factory=Oven)


def test_a_file_is_laid_over_the_defaults_and_overrides_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cake.toml"
    path.write_text('minutes = 40\nname = "lemon"\n[oven]\nheat = 160\nracks = [3]\n', encoding="utf-8")
    cake = load_recipe(
        Cake, path=path, overrides=["oven.fan=true", "minutes=45", "icing=sugar", "oven.mode=bottom"]
    )
    assert cake == Cake(
        minutes=45, name="lemon", icing="sugar", oven=Oven(heat=160.0, fan=True, mode="bottom", racks=(3,))
    )
    assert load_recipe(Cake, path=path, overrides=["icing=none"]).icing is None


def test_values_are_taken_as_they_are_over_the_file_and_under_the_overrides(tmp_path: Path) -> None:
    """A name that looks like TOML stays a name; only --set is parsed."""
    path = tmp_path / "cake.toml"
    path.write_text('name = "lemon"\n[oven]\nheat = 160\n', encoding="utf-8")
    values = {"name": '"7" = [true]', "minutes": 40, "oven.fan": True, "oven.racks": [3, 4]}
    cake = load_recipe(Cake, path=path, values=values, overrides=["minutes=45"])
    assert cake == Cake(
        minutes=45, name='"7" = [true]', oven=Oven(heat=160.0, fan=True, mode="top", racks=(3, 4))
    )
    with pytest.raises(RecipeError, match=r"oven\.racks\[1\] is 'b'; it must be a whole number"):
        load_recipe(Cake, values={"minutes": 1, "oven.racks": [1, "b"]})


@dataclass(frozen=True, kw_only=True)
class Pie:
    filling: Annotated[str, OneOf(("apple", "cherry"))] | None = None


def test_a_field_may_be_one_of_values_that_are_derived() -> None:
    assert load_recipe(Pie, overrides=["filling=cherry"]).filling == "cherry"
    assert load_recipe(Pie, overrides=["filling=none"]).filling is None
    with pytest.raises(
        RecipeError, match=r"filling is 'aple'; it must be one of apple, cherry; did you mean apple\?"
    ):
        load_recipe(Pie, values={"filling": "aple"})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["minutes=1", "oven.haet=1"], r"recipe: unknown key oven\.haet; did you mean oven\.heat\?"),
        (["minutes=1", "zzz=1"], r"recipe: unknown key zzz; keys here: minutes, name, icing, oven"),
        ([], r"recipe: missing key minutes\. Set it there or with --set minutes="),
        (["minutes=1.5"], r"recipe: minutes is 1\.5; it must be a whole number"),
        (["minutes=true"], r"recipe: minutes is True; it must be a whole number"),
        (["minutes=1", "oven.heat=hot"], r"recipe: oven\.heat is 'hot'; it must be a number"),
        (["minutes=1", "oven.fan=1"], r"recipe: oven\.fan is 1; it must be true or false"),
        (["minutes=1", "name=1"], r"recipe: name is 1; it must be a string"),
        (["minutes=1", "oven=3"], r"recipe: oven is 3; it must be a table, \[oven\]"),
        (["minutes=1", "oven.racks=3"], r"recipe: oven\.racks is 3; it must be a list"),
        (["minutes=1", 'oven.racks=[1, "b"]'], r"recipe: oven\.racks\[1\] is 'b'; it must be a whole number"),
        (
            ["minutes=1", "oven.mode=botom"],
            r"oven\.mode is 'botom'; it must be one of top, bottom; did you mean bottom\?",
        ),
        (["minutes=1", "oven.heat=301"], r"recipe: oven: heat is 301\.0; it must be at most 300"),
        (["minutes=1", "oven.heat=nan"], r"recipe: oven\.heat is nan; it must be a finite number"),
        (["minutes=1", "oven.heat=-inf"], r"recipe: oven\.heat is -inf; it must be a finite number"),
        (["minutes"], r"--set 'minutes': wanted key=value, such as optim\.lr=1e-4"),
        (["oven..heat=1"], r"--set 'oven\.\.heat=1': wanted key=value"),
    ],
)
def test_what_does_not_fit_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(Cake, overrides=overrides)


def test_a_key_missing_in_a_table_that_is_missing_is_named_itself() -> None:
    with pytest.raises(RecipeError, match=r"missing key run\.steps\. Set it there or with --set run\.steps="):
        load_recipe(PretrainRecipe)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "cake.toml").write_text("minutes = 3", encoding="utf-8-sig")
    assert load_recipe(Cake, path=tmp_path / "cake.toml").minutes == 3


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: there is no such recipe; check the path"):
        load_recipe(Cake, path=tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("minutes = = 3", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"bad\.toml: not TOML \(.*line 1.*\)\. Correct the file"):
        load_recipe(Cake, path=tmp_path / "bad.toml")


def test_the_shipped_shapes_are_those_of_their_papers() -> None:
    shapes = {}
    for name in ("tiny", "mini", "small", "base", "vaswani"):
        model = load_recipe(PretrainRecipe, preset=name, overrides=["run.steps=1"]).model
        shapes[name] = (
            model.num_hidden_layers,
            model.hidden_size,
            model.num_attention_heads,
            model.intermediate_size,
        )
        assert model.hidden_act == ("relu" if name == "vaswani" else "gelu")
        assert model.position == ("sinusoidal" if name in ("vaswani", "mini") else "learned")
    assert shapes == {
        "tiny": (2, 128, 2, 512),
        "mini": (4, 256, 4, 1024),
        "small": (4, 512, 8, 2048),
        "base": (12, 768, 12, 3072),
        "vaswani": (6, 512, 8, 2048),
    }


def test_an_unknown_preset_is_told_from_those_there_are() -> None:
    assert "mini" in preset_names()
    with pytest.raises(
        RecipeError, match=r"there is no preset 'minni'; did you mean mini\?; presets are .*tiny"
    ):
        read_preset("minni")


ABOUT = """
minutes = 40
[about]
task = "distill"
purpose = "Bake."
cost = "an hour"
reaches = "a cake"
"""


def test_a_recipe_of_another_task_is_refused_where_a_task_is_named(tmp_path: Path) -> None:
    wanted = (
        r"a recipe of `embedkit train contrastive`; this is `embedkit train mlm`\. Take one of adapt, base, "
    )
    with pytest.raises(RecipeError, match="preset contrastive: " + wanted):
        load_recipe(PretrainRecipe, task="mlm", preset="contrastive", overrides=["run.steps=1"])
    path = tmp_path / "mine.toml"
    path.write_text(preset_text("contrastive"), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.toml: " + wanted):
        load_recipe(PretrainRecipe, task="mlm", preset="tiny", path=path, overrides=["run.steps=1"])
    assert load_recipe(PretrainRecipe, task="mlm", preset="tiny", overrides=["run.steps=1"]).run.steps == 1


def test_what_a_file_says_about_itself_sets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cake.toml"
    path.write_text(ABOUT, encoding="utf-8")
    assert load_recipe(Cake, path=path) == Cake(minutes=40)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("purpose", "porpose", r"unknown key about\.porpose; did you mean about\.purpose\?"),
        ('cost = "an hour"\n', "", r"missing key about\.cost\."),
        ('"an hour"', "60", r"about\.cost is 60; it must be a string"),
        ('"an hour"', '""', r"about: cost is ''; it must be one line of text"),
        (
            '"distill"',
            '"bake"',
            r"about\.task is 'bake'; it must be one of mlm, contrastive, distill, reranker, generation, lm",
        ),
        ("[about]", "about = 3\n[aboard]", r"about is 3; it must be a table, \[about\]"),
    ],
)
def test_what_a_file_says_about_itself_is_read_strictly(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "cake.toml"
    assert before in ABOUT
    path.write_text(ABOUT.replace(before, after), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"cake\.toml: " + message):
        load_recipe(Cake, path=path)


def test_a_name_stands_for_a_shipped_recipe_unless_it_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a run's folder, say
    named = load_recipe(PretrainRecipe, path="tiny", overrides=["run.steps=1"])
    assert named.model.hidden_size == 128
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_text("[model]\nhidden_size = 64\n", encoding="utf-8")
    assert load_recipe(PretrainRecipe, path="tiny", overrides=["run.steps=1"]).model.hidden_size == 64


def test_differences_are_listed_key_by_key() -> None:
    old = as_table(Cake(minutes=1))
    new = as_table(Cake(minutes=2, oven=Oven(racks=(1,))))
    assert differences(old, new) == ["minutes: 1 -> 2", "oven.racks: (1, 2) -> (1,)"]
    assert differences({"racks": [1, 2]}, {"racks": (1, 2)}) == []


scalars = st.integers() | st.booleans() | st.text(max_size=3)
tables = st.recursive(
    st.dictionaries(st.sampled_from("abc"), scalars, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), scalars | inner, max_size=3),
    max_leaves=8,
)


@given(tables, tables)
def test_what_lies_above_wins(below: dict[str, object], above: dict[str, object]) -> None:
    result = merged(below, above)
    assert result.keys() == below.keys() | above.keys()
    assert merged(result, above) == result
    for key, value in above.items():
        if not isinstance(value, dict):
            assert result[key] == value


@given(st.integers(0, 10**6), st.floats(0, 300), st.booleans(), st.sampled_from(["top", "bottom"]))
def test_a_recipe_comes_back_from_its_table(
    minutes: int, heat: float, fan: bool, mode: Literal["top", "bottom"]
) -> None:
    cake = Cake(minutes=minutes, oven=Oven(heat=heat, fan=fan, mode=mode))
    assert build(Cake, as_table(cake), "there") == cake
