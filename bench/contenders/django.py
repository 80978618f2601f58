"""Django itself: rows into Python, values out of it, bulk_update."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import islice
from typing import Any

from bench.contenders.base import APPLICATION, BATCH, Contender, Task


@dataclass(frozen=True)
class DjangoBulkUpdate(Contender):
    """`iterator()` and `bulk_update()`, as its documentation has it."""

    name: str = "django"
    label: str = "Django, iterator and bulk_update"

    def prepare(self, task: Task) -> None:
        """Imports Django, which takes time that is not the work's."""
        connect(task)

    def fill(self, task: Task) -> None:
        """The loop that an application would have."""
        connection, model = connect(task), order_model()
        try:
            todo = model.objects.filter(amount_new__isnull=True).only("id", "amount").iterator(chunk_size=BATCH)
            while orders := [*islice(todo, BATCH)]:
                for order in orders:
                    # As PostgreSQL makes a numeric of a double precision.
                    order.amount_new = Decimal(f"{order.amount:.15g}")
                model.objects.bulk_update(orders, ["amount_new"], batch_size=BATCH)
        finally:
            connection.close()


def connect(task: Task) -> Any:
    """Points Django's one connection at the database of this run."""
    import django
    from django.conf import settings

    cluster = task.db.cluster
    here = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": task.db.name,
        "HOST": str(cluster.folder),
        "PORT": str(cluster.port),
        "USER": "postgres",
        "OPTIONS": {"application_name": APPLICATION},
    }
    if not settings.configured:
        settings.configure(DATABASES={"default": here}, USE_TZ=True)
        django.setup()
    from django.db import connection

    connection.close()
    connection.settings_dict.update(here)
    return connection


@cache
def order_model() -> Any:
    """The model of the table; made late, since Django wants its settings first."""
    from django.db import models

    class Order(models.Model):
        """Only what the work needs: Django selects no other column then."""

        id = models.BigAutoField(primary_key=True)
        amount = models.FloatField()
        amount_new = models.DecimalField(null=True, max_digits=40, decimal_places=20)

        class Meta:
            app_label = "bench"
            db_table = "orders"
            managed = False

    return Order
