"""`ml-assets`: the command line. It puts the groups of commands together; each command calls what Dagster calls too."""

from __future__ import annotations

import sys

import typer
from rich.text import Text

from ml_assets.cli.accounts import add_accounts_commands
from ml_assets.cli.alerts import add_alerts_commands
from ml_assets.cli.backup import add_backup_commands
from ml_assets.cli.databases import add_databases_commands
from ml_assets.cli.dead_letters import add_dead_letters_commands
from ml_assets.cli.desk import add_desk
from ml_assets.cli.foreseen import is_foreseen
from ml_assets.cli.landing import add_landing_commands
from ml_assets.cli.looking import add_looking_commands
from ml_assets.cli.market import add_market_commands
from ml_assets.cli.mcp import add_mcp
from ml_assets.cli.model_report import add_model_report
from ml_assets.cli.models import add_models_commands
from ml_assets.cli.opened import read_settings
from ml_assets.cli.promotions import add_promotions_commands
from ml_assets.cli.reports import add_reports_commands
from ml_assets.cli.serve import add_serve
from ml_assets.cli.small_blocks import keep_small_blocks
from ml_assets.cli.stages import add_stages_commands
from ml_assets.cli.ui import add_ui
from ml_assets.cli.usecase import add_usecase_commands
from ml_assets.screen import screen

app = typer.Typer(
    help="The ML lifecycle of Markets Operations. Settings are environment variables ML_ASSETS_..., or lines in .env.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = screen()
# In the order in which `--help` lists them.
for add in (
    add_market_commands,
    add_landing_commands,
    add_dead_letters_commands,
    add_accounts_commands,
    add_stages_commands,
    add_promotions_commands,
    add_models_commands,
    add_looking_commands,
    add_reports_commands,
    add_alerts_commands,
    add_usecase_commands,
    add_ui,
    add_desk,
    add_serve,
    add_mcp,
    add_backup_commands,
    add_databases_commands,
    add_model_report,
):
    add(app, console)


def main() -> None:
    """Run the command line; an error that a person can act on is one line, a bug of ours is a traceback."""
    if sys.argv[1:2] == ["serve"]:
        keep_small_blocks()
    try:
        app()
    except Exception as error:
        if not is_foreseen(error) or _wants_traceback(error):
            raise
        screen(stderr=True).print(
            Text("error:", "red"), Text(str(getattr(error, "orig", error)).strip()), highlight=False
        )
        sys.exit(1)


def _wants_traceback(error: Exception) -> bool:
    from ml_assets.settings import SettingsError

    return not isinstance(error, SettingsError) and read_settings().traceback


if __name__ == "__main__":
    main()
