"""The same figures in a notebook: equal rows, whole specifications, drawings without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from synthetic_study import HOSTILE, write_study

from ltm.dashboard.inputs import read_inputs
from ltm.dashboard.notebook import Figures
from ltm.dashboard.page import make_parts
from ltm.errors import InputError
from ltm.store import WorkFolder

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    return write_study(tmp_path_factory.mktemp("notebook"), n_runs=48, n_books=30, titles=HOSTILE)


def test_every_figure_has_the_rows_of_the_page(work: WorkFolder) -> None:
    figures = Figures(work)
    page = json.loads(make_parts(read_inputs(work), "en").data)["figures"]
    assert len(figures.names()) > 10
    for name in figures.names():
        figure = figures.get(name)
        table = page[figure._figure_name]["table"]
        assert figure.rows == [dict(zip(table["keys"], row, strict=True)) for row in table["rows"]], name
        assert list(figure.frame.columns) == table["keys"]
        assert len(figure.frame) == len(table["rows"])


def test_every_specification_is_whole_and_draws(work: WorkFolder) -> None:
    for language in ("en", "ru"):
        figures = Figures(work, language)
        for name in figures.names():
            figure = figures.get(name)
            if figure.spec is None:
                assert "<table>" in figure._repr_html_()
                continue
            text = json.dumps({key: part for key, part in figure.spec.items() if key != "datasets"}, ensure_ascii=False)
            assert not re.search(r'"[@$%](?!schema)[a-z]', text), (name, re.findall(r'"[@$%][a-z][^"]*', text))
            assert figure.svg().startswith("<svg"), name
            assert len(figure.title) > 5


def test_names_and_choices_help(work: WorkFolder) -> None:
    figures = Figures(work)
    assert "book_effects" in dir(figures)
    assert figures.book_effects().frame.equals(figures.get("book").frame)
    transfer = figures.book_effects(choice="transfer")
    drawn = transfer.spec["datasets"]["rows"]
    assert {row["ability_key"] for row in drawn} == {"transfer"}
    with pytest.raises(InputError, match="no figure `bok_effects`") as caught:
        figures.bok_effects()
    assert "book_effects" in str(caught.value.hint)
    with pytest.raises(InputError, match="has no `magic`"):
        figures.book_effects(choice="magic")
    assert not hasattr(figures, "_private")


def test_hostile_titles_stay_text(work: WorkFolder) -> None:
    shown = Figures(work).book_effects()._repr_mimebundle_()["text/html"]
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<script" not in Figures(work).library()._repr_html_()


def test_rows_and_drawings_are_saved(work: WorkFolder, tmp_path: Path) -> None:
    figure = Figures(work).book_effects()
    assert pd.read_parquet(figure.save(tmp_path / "rows.parquet")).equals(figure.frame)
    assert len(pd.read_csv(figure.save(tmp_path / "rows.csv"))) == len(figure.frame)
    assert figure.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(figure.save(tmp_path / "a.json").read_text(encoding="utf-8"))["datasets"]["rows"]
    with pytest.raises(InputError, match=r"a\.gif"):
        figure.save(tmp_path / "a.gif")


def test_an_empty_study_has_no_figures(tmp_path: Path) -> None:
    figures = Figures(WorkFolder(tmp_path))
    assert figures.names() == []
    with pytest.raises(InputError, match="there is no figure"):
        figures.book_effects()


@pytest.mark.slow
def test_a_real_notebook_shows_it(work: WorkFolder, tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    lines = ["import ltm", f"study = ltm.load('demo', work={str(work.root)!r})", "study.figures.book_effects()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = notebook.cells[0]["outputs"][-1]["data"]
    assert "<svg" in shown["text/html"]
    assert "effect" in shown["text/plain"].lower()
