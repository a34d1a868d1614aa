"""The verb ``study``: one table from action to handler. Free of torch, as are `plan` and `report`."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from importlib import import_module

from lightning_lab.runs.arguments import Parser
from lightning_lab.runs.errors import InputError, unknown

#: action: (module, function, one line for --help). Each parses what follows it.
_ACTIONS = {
    "plan": ("lightning_lab.studies.plan", "main", "check the file; cells, what is done, hours, disk"),
    "run": ("lightning_lab.studies.running", "main", "train what is missing or failed; Ctrl-C stops, again goes on"),
    "report": ("lightning_lab.studies.report.main", "main", "tables, verdicts, curves: report.html, .md, .csv"),
    "select": ("lightning_lab.studies.choosing", "select", "choose the arm that may be tested, on validation results"),
    "test": ("lightning_lab.studies.choosing", "test", "open the test set, once for each seed of the selected arm"),
}
_EXAMPLE = """a study file:
  name: digits-dropout
  base: digits/lenet5                            # or a list, later ones over earlier ones
  reference: {model.net.dropout: 0.0}            # the arm the others are compared with
  factors: {model.net.dropout: [0.0, 0.2, 0.5]}  # one at a time around it; `design: full` combines factors
  seeds: 5                                       # 0 to 4; or a list
  metric: val/acc
  goal: max
  epochs: 10                                     # or steps, samples, seconds: the budget of every arm
  short: {epochs: 2, seeds: 3}                   # what --short takes instead, as a study of its own
  margin: 0.01                                   # the difference in the metric that does not matter
  claims:
    - {id: A9, text: dropout raises the accuracy, arm: 0.5, against: 0.0, expect: better}

keys are written as on the command line of fit. Instead of `factors`:
  arms: {plain: {}, dropped: {model.net.dropout: 0.5}, other: {base: digits/mlp}}
  reference: plain
with factors, too: `exclude: [{KEY: LEVEL, KEY: LEVEL}]` (full), `overrides: {dropout=0.5: {KEY: VALUE}}` for one arm.
a claim expects better, worse, equivalent, different or diverges, and may have a metric and a margin of its own;
of one arm, that a difference rises or falls: {metric: val/loss@20 - val/loss@10, arm: 0.5, expect: rises, ...}.

examples:
  lightning-lab study plan digits_dropout
  lightning-lab study run digits_dropout
  lightning-lab study report digits_dropout
  lightning-lab study select digits_dropout
  lightning-lab study test digits_dropout"""


def main(args: list[str]) -> int:
    """Hand over to an action.

    Args:
        args: What follows ``study`` on the command line.

    Returns:
        The exit code.

    Raises:
        InputError: If there is no such action.
    """
    if not args or args[0] in ("--help", "-h"):
        _parser().print_help()
        return 0
    action, *rest = args
    if action not in _ACTIONS:
        raise InputError(unknown("action of study", action, _ACTIONS))
    module, function, _ = _ACTIONS[action]
    code: int = getattr(import_module(module), function)(rest)
    return code


def _parser() -> Parser:
    actions = "\n".join(f"  {action:<7} {line}" for action, (_, _, line) in _ACTIONS.items())
    return Parser(
        prog="lightning-lab study",
        usage=f"lightning-lab study {{{','.join(_ACTIONS)}}} FILE [options]",
        description="Compare arms (settings of a run) over several seeds, and say which differences are real.\nFILE is "
        f"a study file, or the name of a shipped one (`lightning-lab configs`).\n\nactions:\n{actions}",
        epilog=_EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
