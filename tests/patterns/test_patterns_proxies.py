"""Proxy tables made on the spot from a known mixing law: mixtures are ranked, and bad tables explained."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ltm.cli import main
from ltm.errors import InputError
from ltm.patterns.prediction import spearman
from ltm.patterns.proxies import fit_proxies, read_columns


def _law(n, rng, domains=17, noise=0.004, pulls=None):
    """RegMix-like: Dirichlet mixtures, loss = c + k exp(t . r)."""
    weights = np.array([rng.dirichlet(np.full(domains, rng.choice([0.1, 0.5, 1.0, 5.0]))) for _ in range(n)])
    return weights, 1.8 + 1.5 * np.exp(weights @ pulls) + noise * rng.standard_normal(n)


@pytest.mark.parametrize(("n", "bar"), [(32, 0.95), (512, 0.96)])
def test_mixtures_that_were_never_trained_are_ranked(n, bar):
    found = []
    for seed in range(4 if n == 32 else 1):
        rng = np.random.default_rng(seed)
        pulls = rng.normal(-0.4, 0.6, 17)
        fitted = fit_proxies(*_law(n, rng, pulls=pulls))
        weights, truth = _law(200, rng, noise=0.0, pulls=pulls)
        found.append(spearman(fitted.predict(weights), truth))
        covered = np.mean(np.abs(fitted.predict(weights) - truth) <= fitted.half_width)
        assert covered >= 0.75
    assert np.mean(found) >= bar


def test_what_is_left_out_is_what_a_fit_without_it_predicts():
    rng = np.random.default_rng(1)
    weights, scores = _law(12, rng, domains=4, pulls=rng.normal(0, 1, 4))
    whole = fit_proxies(weights, scores)
    from ltm.patterns import proxies

    kernel = proxies._kernel(weights - whole.centre, weights - whole.centre, whole.bend, whole.length)
    y = proxies._forth(scores, whole.form, whole.floor)
    for out in range(12):
        rest = np.delete(np.arange(12), out)
        inverse = np.linalg.inv(kernel[np.ix_(rest, rest)] + whole.ridge * np.eye(11))
        one = np.ones(11)
        mean = (one @ inverse @ y[rest]) / (one @ inverse @ one)
        guess = mean + kernel[out, rest] @ inverse @ (y[rest] - mean)
        assert whole.left_out[out] == pytest.approx(
            proxies._back(np.array([guess]), whole.form, whole.floor)[0], rel=1e-5
        )


def test_accuracies_that_rise_are_ranked_too():
    rng = np.random.default_rng(3)
    weights, loss = _law(64, rng, pulls=rng.normal(-0.4, 0.6, 17))
    fitted = fit_proxies(weights, 1.0 - 0.1 * loss)
    assert fitted.rank_correlation > 0.9


def _write(path, header, rows):
    path.write_text("\n".join([",".join(header), *(",".join(map(str, r)) for r in rows)]) + "\n")
    return str(path)


def test_the_command_joins_by_key_and_checks_unseen_mixtures(tmp_path, capsys):
    rng = np.random.default_rng(5)
    pulls = rng.normal(-0.4, 0.6, 5)
    w, y = _law(40, rng, domains=5, pulls=pulls)
    u, t = _law(30, rng, domains=5, pulls=pulls)
    names = [f"d{i}" for i in range(5)]
    back = np.arange(40)[::-1]
    one = _write(tmp_path / "w.csv", ["index", *names], [[f"m{i}", *w[i]] for i in range(40)])
    two = _write(tmp_path / "s.csv", ["index", "loss"], [[f"m{i}", y[i]] for i in back])
    three = _write(tmp_path / "u.csv", ["index", *names[::-1]], [[f"u{i}", *u[i][::-1]] for i in range(30)])
    four = _write(tmp_path / "t.csv", ["index", "loss"], [[f"u{i}", t[i]] for i in range(30)])
    assert main(["proxies", one, two, "--predict", three, "--check", four, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["rank_correlation_unseen"] > 0.95
    assert value["domains"][0]["name"] == f"d{int(np.argmax(pulls))}"
    assert len(value["predicted"]) == 30
    assert main(["proxies", one, two]) == 0
    assert "rank correlation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("weights", "scores", "message"),
    [
        ("a,b\n1,0\n0,1\n", "loss\n1\n2\n", "too few"),
        ("a,b\n" + "1,0\n0,1\n" * 5, "loss\n" + "1\n" * 9, "no key in common"),
        ("a,b\n" + "1,0\n0,1\n" * 5, "loss\n" + "3\n" * 10, "the same score"),
        ("a,b\n" + "1,0\n0,1\n" * 5, "loss\n" + "1\nx\n" * 5, "is not a number"),
        ("a,b\n1,0\n0\n", "loss\n1\n2\n", "1 columns, not 2"),
        ("a,b\n", "loss\n1\n", "no rows"),
    ],
)
def test_bad_tables_are_explained(tmp_path, capsys, weights, scores, message):
    (tmp_path / "w.csv").write_text(weights)
    (tmp_path / "s.csv").write_text(scores)
    assert main(["proxies", str(tmp_path / "w.csv"), str(tmp_path / "s.csv")]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(InputError):
        read_columns(tmp_path / "none.csv")
