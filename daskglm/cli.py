"""The command line: standard output is the result, standard error everything else, exit codes say what to do next."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NoReturn

import click

from daskglm import errors, interrupts
from daskglm.errors import DaskglmError, DesignError
from daskglm.version import __version__

NOT_CONVERGED = 4


class _TerminatedError(KeyboardInterrupt):
    """A signal to end, which cleans up as an interrupt does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does: workers are cleaned up, a checkpoint is kept.

    A signal that is ignored (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: Any) -> None:
        raise _TerminatedError(number)

    numbers = [number for number in interrupts.ENDING if interrupts.is_default(number)]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Group(click.Group):
    """Turns errors of ours into one line and an exit code, and anything else into one line and exit code 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        given = [str(word) for word in (kwargs.get("args") or (args[0] if args else None) or sys.argv[1:])]
        try:
            if given and not {"--help", "--version"} & set(given):
                # imports can swallow an interrupt, which ends the command at once until they are done
                importlib.import_module("daskglm.api")
            interrupts.handle_as_usual()
            with _ended_by_signals():
                code = super().main(*args, **kwargs)
            sys.stdout.flush()
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _fail(given, 2, "UsageError", " ".join(error.format_message().split()))
        except (click.Abort, KeyboardInterrupt) as error:
            # click raises its own error from whatever interrupts a command
            cause = error.__cause__ if isinstance(error, click.Abort) else error
            number = cause.number if isinstance(cause, _TerminatedError) else int(signal.SIGINT)
            _fail(
                given, interrupts.SIGNALLED + number, "Interrupted", interrupts.description(number),
                prefix="",
            )  # fmt: skip
        except BrokenPipeError:
            # the reader went away; nothing more can be said, and Python must not try
            _silence_output()
            sys.exit(0)
        except DaskglmError as error:
            _fail(given, error.exit_code, _public_kind(error), _in_options(given, error))
        except MemoryError:
            _fail(
                given, 1, "MemoryError",
                "out of memory: try --keep reread, or --memory-limit below what is there",
            )  # fmt: skip
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug shows where)"
            _fail(given, 1, type(error).__name__, said, prefix="unexpected failure: ")


def _silence_output() -> None:
    """Let what is still to be printed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(given: list[str], code: int, kind: str, message: str, prefix: str = "error: ") -> NoReturn:
    """Print an error on standard error and, with --json, as the last line of standard output; exit."""
    if "--debug" in given:
        traceback.print_exc()
    click.echo(f"{prefix}{message}", err=True)
    if "--json" in given:
        click.echo(json.dumps({"error": message, "kind": kind, "exit_code": code}))
        sys.stdout.flush()
    sys.exit(code)


def _public_kind(error: DaskglmError) -> str:
    """Return the name of the nearest class of an error that users can import from daskglm.errors."""
    public = (kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return next(public)


def _in_options(given: Sequence[str], error: DaskglmError) -> str:
    """Return the message of an error with keywords, unseen="baseline", as options of the command."""
    message = error.on_command_line or str(error)
    command = main.commands.get(given[0]) if given else None
    flags = [
        option.removeprefix("--")
        for parameter in (command.params if command else ())
        for option in parameter.opts
        if option.startswith("--")
    ]
    if not flags:
        return message
    keyword = rf'(?<![\w."-])({"|".join(flags)})="([\w-]+)"'
    return re.sub(keyword, r"--\1 \2", message)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="daskglm")
@click.pass_context
def main(context: click.Context) -> None:
    """Generalized linear models on Parquet lakes of any size."""
    context.with_resource(warnings.catch_warnings())
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = _one_line_warning


def _one_line_warning(message: Any, category: Any, *_: Any, **__: Any) -> None:
    click.echo(f"{category.__name__}: {message}", err=True)


def _import(modules: tuple[str, ...]) -> None:
    """Import what a user names, for families and links of their own."""
    import importlib

    sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DesignError(f"--import {name}: {error}") from None


def _number_or_text(value: str | None) -> Any:
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return value


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_FIT_OPTIONS = _options(
    click.option(
        "--family",
        help='gaussian, binomial, poisson, gamma, multinomial, ordinal, "negative_binomial(theta=2)", "tweedie(power=1.5)", ...',
    ),
    click.option("--link", help='identity, log, logit, probit, cloglog, "power(0.5)", ...; the family\'s if left out.'),
    click.option("--weights", help='A column, or "frequency(n)", "variance(w)", "probability(w)", "trials(n)".'),
    click.option("--offset", help="A column or expression added to the linear predictor."),
    click.option("--exposure", help="A column whose logarithm is added (log link)."),
    click.option("--trials", help="A column; the response counts successes out of that many."),
    click.option("--penalty", help="Not available in this version."),
    click.option("--constraints", help="Not available in this version."),
    click.option("--covariance", help='model, observed, HC0, HC1, HC2, HC3 or "cluster(policy, year)".'),
    click.option("--dispersion", help="A number, pearson, deviance or ml."),
    click.option("--missing", help="drop or raise."),
    click.option("--where", help='A row filter, such as "year = 2024".'),
    click.option("--unseen", help="For later predictions at unseen levels: raise, baseline or missing."),
    click.option("--separation", help="Infinite coefficients: limit, drop, raise or firth."),
    click.option("--solver", help="auto or newton."),
    click.option("--tol", type=float, help="Bound on the Newton decrement."),
    click.option("--max-iter", type=int, help="Steps at most."),
    click.option("--start", help="Not available on the command line."),
    click.option("--keep", help="Where decoded rows live: auto, memory, disk or reread."),
    click.option(
        "--checkpoint", type=click.Path(), help="Folder for the state after each pass; the same call resumes."
    ),
)
_CLUSTER = _options(
    click.option("--scheduler", help="A running Dask cluster: tcp://host:port or tls://host:port."),
    click.option("--scheduler-file", type=click.Path(), help="The file that its scheduler writes."),
    click.option("--tls-ca-file", type=click.Path(), help="Certificate authority (PEM)."),
    click.option("--tls-cert", type=click.Path(), help="This client's certificate (PEM)."),
    click.option("--tls-key", type=click.Path(), help="This client's key (PEM)."),
)
_COMMON = _options(
    click.option(
        "--import", "modules", multiple=True, help="A module with families or links of one's own; may be repeated."
    ),
    click.option("--threads", type=click.IntRange(min=1), help="Threads; all that this process may use if left out."),
    click.option("--json", "as_json", is_flag=True, help="End standard output with one line of JSON."),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)


@main.command()
@click.argument("formula")
@click.argument("data", nargs=-1)
@_FIT_OPTIONS
@_CLUSTER
@click.option("--out", type=click.Path(), help="Folder or s3:// URL for the model.")
@click.option(
    "--publish",
    help="Which runs become the model that later commands read: converged (the default), or always.",
)
@click.option("--memory-limit", help="Memory to plan for, such as 2GiB; the control group's if left out.")
@click.option("--progress/--no-progress", default=None, help="A bar; in a terminal only, if left out.")
@_COMMON
def fit(
    formula: str,
    data: tuple[str, ...],
    out: str | None,
    publish: str | None,
    memory_limit: str | None,
    progress: bool | None,
    threads: int | None,
    modules: tuple[str, ...],
    as_json: bool,
    debug: bool,
    **flags: Any,
) -> int:
    """Fit FORMULA to DATA: a Parquet file, folder, glob pattern, URL, or several. Or fit JOB.toml."""
    from daskglm.jobs import options_of, read_job
    from daskglm.persist import publishes
    from daskglm.plan import make_plan

    _import(modules)
    _check_order(formula, data)
    job: dict[str, Any] = {}
    if formula.endswith(".toml") and not data:
        job = read_job(formula)
    else:
        job = {"formula": formula, "data": list(data)}
    job.update({name: value for name, value in flags.items() if value is not None})
    settings = {
        "out": out, "publish": publish, "memory_limit": memory_limit, "progress": progress, "threads": threads,
    }  # fmt: skip
    job.update({name: value for name, value in settings.items() if value is not None})
    if flags["start"] is not None:
        raise DesignError("--start is not available on the command line: give start= in Python")
    if not job.get("formula") or not job.get("data"):
        raise DesignError("give a formula and the data: daskglm fit 'y ~ x' lake/")
    if job.get("publish") is not None and job.get("out") is None:
        raise DesignError("--publish is about the model's folder: add --out")
    publishes(job.get("publish", "converged"), True)
    plan = make_plan(job["formula"], options_of(job))
    raising = plan.separation == "raise"
    if raising:
        # a job has a model to write in any case
        plan = replace(plan, separation="limit")
    delivery = _Delivery(job.get("out"), job.get("publish", "converged"), raising, as_json)
    if plan.checkpoint is not None:
        _check_checkpoint(plan.checkpoint, delivery.place)
    _run(plan, job, delivery, debug)
    if delivery.trouble is not None:
        raise DesignError(delivery.trouble)
    return delivery.exit_code


def _check_order(formula: str, data: Sequence[str]) -> None:
    """Raise DesignError where a formula is given after the data."""
    late = [word for word in data if re.search(r"\S\s*~\s*\S", word) and not os.path.exists(word)]
    if "~" not in formula and late:
        paths = shlex.join([formula, *(word for word in data if word != late[0])])
        raise DesignError(f'the formula comes first: daskglm fit "{late[0]}" {paths}')


def _run(plan: Any, job: Mapping[str, Any], delivery: _Delivery, debug: bool) -> None:
    """Fit the plan to the job's data, on the cluster that it names if it names one."""
    from daskglm.cluster.connect import connected
    from daskglm.cluster.engine import Engine
    from daskglm.cluster.sources import open_source
    from daskglm.fit import run_all
    from daskglm.jobs import byte_count
    from daskglm.progress import reporter

    given = job["data"]
    source = open_source(given if isinstance(given, str) or len(given) > 1 else given[0])
    _hush(debug)
    with connected(job) as client:
        engine = Engine(job.get("threads"), byte_count(job.get("memory_limit")), client=client)
        run_all(plan, source, engine, reporter(job.get("progress")), delivery.deliver)


def _hush(debug: bool) -> None:
    """Leave out what Dask logs of a lost connection, which is one sentence of ours."""
    if not debug:
        logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)
        logging.getLogger("tornado").setLevel(logging.CRITICAL + 1)


def _check_checkpoint(path: str, model: str | None) -> None:
    """Raise DesignError where no checkpoint can be written, or only among the files of the model."""
    from daskglm.checkpoint import checkpoint_folder

    folder = checkpoint_folder(path)
    if model is not None and os.path.abspath(folder.place) == os.path.abspath(model):
        raise DesignError(f"--out and --checkpoint are both {model}: name another folder for the checkpoint")
    folder.probe()


class _Delivery:
    """What is done with a fit: the summary is printed, the model written, the JSON printed last."""

    def __init__(self, out: str | None, publish: str, raising: bool, as_json: bool) -> None:
        """Check that the model can be written to `out`, before any data are read."""
        from daskglm import persist
        from daskglm.cluster.folders import open_folder

        self.publish, self.raising, self.as_json = publish, raising, as_json
        self.began, self.exit_code = time.perf_counter(), 0
        self.trouble: str | None = None
        self.folder = None if out is None else open_folder(out, persist.COMPLAINT, lasting=True)
        if self.folder is not None:
            persist.refuse_foreign(self.folder)
            self.folder.probe()

    def deliver(self, records: list[Any]) -> None:
        """Print and write the result of a fit."""
        from daskglm.several import fitted, save

        result: Any = fitted(records)
        seconds = time.perf_counter() - self.began
        self._print(str(result.summary()))
        separated = [name for fit in _each(result) for name in fit.separated] if self.raising else []
        if separated:
            click.echo(f"error: no finite estimate exists for {', '.join(separated)}", err=True)
        passed = bool(result.converged) and not separated
        self.exit_code = 0 if passed else NOT_CONVERGED
        outcome = _outcome(result, self.place, seconds) | {"exit_code": self.exit_code}
        if self.folder is not None:
            saved = save(result, self.folder, self.publish, passed)
            outcome |= {"runs": list(saved.runs), "published": saved.published}
            if not saved.published:
                why = "an estimate is infinite" if separated else "the fit did not converge"
                self._unpublished(saved.runs, why)
        if self.as_json:
            self._print(json.dumps(outcome))

    def _print(self, text: str) -> None:
        """Print to standard output; what cannot be printed must not cost the model."""
        try:
            click.echo(text)
            sys.stdout.flush()
        except (OSError, UnicodeError) as error:
            if not isinstance(error, BrokenPipeError):
                self.trouble = f"standard output cannot be written to: {' '.join(str(error).split())}"
            _silence_output()

    @property
    def place(self) -> str | None:
        """Where the model goes, without secrets."""
        return None if self.folder is None else self.folder.place

    def _unpublished(self, runs: tuple[str, ...], why: str) -> None:
        assert self.folder is not None
        before = {"current.json", "responses.json"} & set(self.folder.names())
        state = "the model published before stays" if before else "it has no published model"
        click.echo(
            f"not published in {self.place}: {why}; {state}. The run is kept in {', '.join(runs)}; "
            "--publish always publishes such runs, too",
            err=True,
        )


def _each(result: Any) -> list[Any]:
    """The fits of a result: one, or one for each response."""
    return [result[name] for name in result.responses] if hasattr(result, "responses") else [result]


def _outcome(result: Any, target: str | None, seconds: float) -> dict[str, Any]:
    if hasattr(result, "responses"):
        each = {name: _outcome(result[name], None, seconds) for name in result.responses}
        return {"converged": result.converged, "responses": each, "seconds": round(seconds, 3), "model": target}
    statistics = result.record.statistics
    return {
        "converged": result.converged,
        "status": result.status,
        "nobs": statistics.n_used,
        "nobs_at_limit": statistics.at_limit,
        "deviance": _number(result.deviance),
        "llf": _number(statistics.llf),
        "aic": _number(statistics.aic),
        "scale": _number(result.scale),
        "n_iter": result.n_iter,
        "n_passes": result.n_passes,
        "aliased": list(result.aliased),
        "separated": list(result.separated),
        "certificate": _certificate(result.certificate),
        "rows_read": result.ledger.read,
        "rows_used": result.ledger.used,
        "seconds": round(seconds, 3),
        "model": target,
    }


def _certificate(found: Any) -> dict[str, Any]:
    """How exact the numbers are, as a document; null where a number is not known."""
    entries = {**asdict(found), "refinements": list(found.refinements)}
    return {key: _number(value) if isinstance(value, float) else value for key, value in entries.items()}


@main.command()
@click.argument("model", type=click.Path())
@click.argument("data", nargs=-1, required=True)
@click.option("--out", type=click.Path(), required=True, help="Folder or s3:// URL for the predictions.")
@click.option("--overwrite", is_flag=True, help="Replace the predictions that are in the folder.")
@click.option("--type", "kind", default="mean", help="mean, link or terms.")
@click.option("--se", is_flag=True, help="Also standard errors.")
@click.option("--interval", help="confidence, or prediction for a new response.")
@click.option("--level", type=float, help="Coverage of the interval; 0.95 if left out.")
@click.option("--offset", help="A number, column or expression in place of the model's.")
@click.option("--exposure", help="A number or column in place of the model's.")
@click.option("--without", multiple=True, help="A term to leave out; may be repeated.")
@click.option("--where", help='Which rows to score, such as "year = 2024"; all if left out.')
@click.option("--unseen", help="Levels that the model has not seen: raise, baseline or missing; as fitted if left out.")
@click.option("--columns", help="Columns of the data to carry along, with commas; all if left out, none if empty.")
@_CLUSTER
@_COMMON
def predict(
    model: str,
    data: tuple[str, ...],
    out: str,
    overwrite: bool,
    kind: str,
    se: bool,
    interval: str | None,
    level: float | None,
    offset: str | None,
    exposure: str | None,
    without: tuple[str, ...],
    where: str | None,
    unseen: str | None,
    columns: str | None,
    threads: int | None,
    modules: tuple[str, ...],
    as_json: bool,
    debug: bool,
    **scheduler: Any,
) -> None:
    """Score DATA with MODEL: Parquet in, Parquet out, a row for every row.

    Folders like year=2024 are kept.
    """
    _import(modules)
    from daskglm.cluster.connect import connected
    from daskglm.cluster.engine import Engine
    from daskglm.cluster.folders import shown
    from daskglm.jobs import Scoring, write_predictions
    from daskglm.persist import load
    from daskglm.predict import Prediction

    if level is not None and interval is None:
        raise DesignError("--level is the coverage of an interval: add --interval confidence")
    carried = None if columns is None else tuple(name.strip() for name in columns.split(",") if name.strip())
    prediction = Prediction(
        kind, se, interval, 0.95 if level is None else level, without, unseen,  # type: ignore[arg-type]
    )  # fmt: skip
    scoring = Scoring(prediction, _number_or_text(offset), _number_or_text(exposure), carried, where, overwrite)
    _hush(debug)
    with connected(scheduler) as client:
        engine = Engine(threads, client=client)
        record = load(model)
        found = write_predictions(record, list(data) if len(data) > 1 else data[0], out, scoring, engine)
    tally, place = found.tally, shown(out)
    filtered = f"; {found.filtered} filtered out" if found.filtered else ""
    click.echo(f"{tally.rows - tally.missing} rows scored into {place}{filtered}{_unscored(tally)}")
    if as_json:
        document = {
            "rows": tally.rows, "scored": tally.rows - tally.missing, "missing": tally.missing,
            "reasons": dict(tally.reasons), "filtered": found.filtered, "out": place,
            "converged": record.converged,
        }  # fmt: skip
        click.echo(json.dumps(document))


def _unscored(tally: Any) -> str:
    """How many rows have no prediction, and why."""
    if not tally.missing:
        return ""
    from daskglm.predict import NO_ESTIMATE, UNSEEN_LEVEL

    others = (NO_ESTIMATE, UNSEEN_LEVEL)
    reasons = [
        f"{name}{'' if name.endswith(others) else ' missing'} in {count}" for name, count in tally.reasons.items()
    ]
    return f"; {tally.missing} without a prediction ({', '.join(reasons)})"


@main.command()
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="As one line of JSON instead of text.")
@click.option("--html", "html_path", type=click.Path(), help="Also write a page.")
@click.option("--import", "modules", multiple=True, help="A module with families or links of one's own.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def summary(model: str, as_json: bool, html_path: str | None, modules: tuple[str, ...], debug: bool) -> None:
    """Print the summary of a saved MODEL."""
    _import(modules)
    from daskglm.cluster.folders import shown, write_file
    from daskglm.several import load

    result: Any = load(model)
    if html_path:
        page = f"<!doctype html><meta charset='utf-8'><title>daskglm</title>{result.summary().as_html()}\n"
        write_file(html_path, page.encode(), "the report cannot be written to {place}")
    if not as_json:
        click.echo(str(result.summary()))
        return
    each = {name: _described(fit, shown(model)) for name, fit in zip(_names(result), _each(result), strict=True)}
    click.echo(json.dumps(each.get("", {"responses": each})))


def _names(result: Any) -> tuple[str, ...]:
    return result.responses if hasattr(result, "responses") else ("",)


def _described(fit: Any, model: str) -> dict[str, Any]:
    """A fit as a document: the outcome and every coefficient."""
    import numpy as np
    import pandas as pd

    names, limits = fit.record.names, fit.conf_int()
    columns: dict[str, Any] = {
        "estimate": fit.record.coefficients, "standard_error": np.sqrt(np.diag(fit.cov_params())),
        "statistic": None, "pvalue": None, "lower": limits["lower"].to_numpy(), "upper": limits["upper"].to_numpy(),
    }  # fmt: skip
    with np.errstate(all="ignore"):
        columns["statistic"] = columns["estimate"] / columns["standard_error"]
    pvalues = fit.pvalues.to_numpy()
    columns["pvalue"] = pvalues.T.ravel() if isinstance(fit.params, pd.DataFrame) else pvalues
    rows = {name: {key: _number(values[i]) for key, values in columns.items()} for i, name in enumerate(names)}
    document = {"formula": fit.formula, **_outcome(fit, model, 0.0), "coefficients": rows}
    document["shape"] = {name: _number(value) for name, value in fit.shape_params.items()}
    document.pop("seconds")
    return document


def _number(value: Any) -> float | str | None:
    """A number as JSON has it: "inf" and "-inf" as text, null where it is not known."""
    if math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf"


@main.group()
def example() -> None:
    """Write an example lake."""


@example.command("flights")
@click.argument("folder", type=click.Path())
def example_flights(folder: str) -> None:
    """The flights that left New York in 2013, by month, with the weather at departure."""
    from daskglm.examples import flights

    click.echo(f"{flights(folder):,} flights written to {folder}")


if __name__ == "__main__":
    main()
