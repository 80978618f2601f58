"""Who takes part: one way of doing the work a file.

The peers' statements are theirs, sent by a client of ours that commits per batch as they do; Django is Django.
"""

from bench.contenders.base import BATCH, Contender, Task
from bench.contenders.django import DjangoBulkUpdate
from bench.contenders.gitlab import Gitlab
from bench.contenders.idle import Idle
from bench.contenders.maintenance_tasks import MaintenanceTasks
from bench.contenders.online_migrations import OnlineMigrations
from bench.contenders.ours import Standalone, ours, with_all_defaults
from bench.contenders.pgroll import Pgroll
from bench.contenders.procedure import KeysetProcedure, PredicateProcedure
from bench.contenders.statement import OneUpdate, TableRewrite

__all__ = [
    "BATCH",
    "Contender",
    "DjangoBulkUpdate",
    "Gitlab",
    "Idle",
    "KeysetProcedure",
    "MaintenanceTasks",
    "OneUpdate",
    "OnlineMigrations",
    "Pgroll",
    "PredicateProcedure",
    "Standalone",
    "TableRewrite",
    "Task",
    "ours",
    "with_all_defaults",
]
