"""The reader of study files: all errors at once, each with its place."""

import pytest

from ltm import config
from ltm.errors import ConfigError, InputError
from ltm.study.settings import StudySettings


def settings(text: str, *overrides: str) -> StudySettings:
    document = config.apply_overrides(config.parse_yaml(text, "s.yaml"), config.parse_overrides(overrides))
    return config.validate(StudySettings, document)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings(text, *overrides)
    return caught.value.problems


def test_unknown_key_names_its_place_and_the_nearest_key():
    (line,) = problems("name: a\nsets:\n  books_per_sett: 3\n")
    assert line == "s.yaml:3:3: unknown key `sets.books_per_sett`; did you mean `books_per_set`?"


def test_all_problems_come_at_once():
    lines = problems("name: a\nseed: x\nsets:\n  count: none\nruns:\n  lr: -1\n")
    assert [line.split(": ")[0] for line in lines] == ["s.yaml:2:1", "s.yaml:4:3", "s.yaml:6:3"]


def test_duplicate_key_is_an_error_with_its_place():
    (line,) = problems("name: a\nsets:\n  count: 1\n  count: 2\n")
    assert line.startswith("s.yaml:4:3: found duplicate key")


def test_missing_name_and_not_a_mapping():
    assert problems("seed: 1\n") == ["s.yaml:1:1: `name` is missing"]
    with pytest.raises(ConfigError, match="expected a mapping"):
        config.parse_yaml("- a\n- b\n", "s.yaml")


def test_broken_yaml_names_its_place():
    with pytest.raises(ConfigError, match=r"s\.yaml:2:\d+"):
        config.parse_yaml("a: [1,\nb: }\n", "s.yaml")


def test_counts_are_written_as_people_write_them():
    assert settings("name: a\nsets:\n  book_tokens: 1.5k\n").sets.book_tokens == 1500
    assert "not a count" in problems("name: a\nsets:\n  book_tokens: many\n")[0]


def test_overrides_are_read_as_yaml_and_blamed_as_set():
    value = settings("name: a\n", "sets.count=64", "sets.densities=[0.5]", "runs.compile=true")
    assert (value.sets.count, value.sets.densities, value.runs.compile) == (64, [0.5], True)
    assert problems("name: a\n", "sets.count=x")[0].startswith("--set sets.count: `sets.count` not a count")
    with pytest.raises(ConfigError, match="expected section.key=value"):
        settings("name: a\n", "sets.count")
    with pytest.raises(ConfigError, match="`name` is not a section"):
        settings("name: a\n", "name.x=1")


def test_contradictions_inside_a_section_are_explained():
    assert "nothing to compare" in problems("name: a\nsets:\n  base_order: shuffled\n")[0]
    assert "nearest: 3" in problems("name: a\nmodel:\n  n_embd: 96\n  n_head: 5\n")[0].replace(
        "nearest: 4", "nearest: 3"
    )
    assert "unknown size `lama-1m`; nearest: llama-1m" in problems("name: a\nmodel:\n  size: lama-1m\n")[0]


def test_missing_file_folder_and_encoding(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        config.read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is a folder"):
        config.read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.read_yaml(tmp_path / "latin.yaml")


def test_every_setting_is_described():
    schema = StudySettings.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{section['title']}.{name}"
        for section in sections
        for name, field in section.get("properties", {}).items()
        if "description" not in field
    ]
    assert undescribed == []
