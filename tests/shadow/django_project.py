"""A Django project for the tests of its hooks, on the tables of `two_sides`; for the service's process.

Databases: ``default`` keeps its connections, ``pooled`` is a psycopg pool, ``elsewhere`` is no known store.
"""

from __future__ import annotations

import tempfile
from typing import Any
from urllib.parse import urlsplit


def project(dsn: str) -> Any:
    """Set Django up, once per process, and return the module-like thing that has the models."""
    from django.conf import settings

    if not settings.configured:
        import django

        settings.configure(
            SECRET_KEY="of no importance",
            DATABASES={
                "default": _database(dsn, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True),
                "pooled": _database(dsn, OPTIONS={"pool": {"min_size": 1, "max_size": 4}}),
                "elsewhere": _database(dsn.rpartition("/")[0] + "/postgres"),
            },
            CACHES={
                "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "one"},
                "files": {
                    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                    "LOCATION": tempfile.mkdtemp(),
                },
                "unknown": {"BACKEND": "django_project.OwnCache"},
            },
            SESSION_FILE_PATH=tempfile.mkdtemp(),
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sites"],
            LOGGING_CONFIG=None,
            USE_TZ=True,
        )
        django.setup()
    return _models()


def _database(dsn: str, **more: Any) -> dict[str, Any]:
    url = urlsplit(dsn)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:],
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": url.password,
        **more,
    }


def _models() -> Any:
    from django.apps import apps
    from django.db import models

    if "item" not in apps.all_models["shop"]:

        class Item(models.Model):
            id = models.AutoField(primary_key=True)
            note = models.TextField()

            class Meta:
                app_label, managed, db_table = "shop", False, "item"

        class Stock(models.Model):
            id = models.IntegerField(primary_key=True)
            amount = models.IntegerField()

            class Meta:
                app_label, managed, db_table = "shop", False, "stock"

    class Found:
        item = apps.all_models["shop"]["item"]
        stock = apps.all_models["shop"]["stock"]

    return Found


def __getattr__(name: str) -> Any:
    if name != "OwnCache":
        raise AttributeError(name)
    from django.core.cache.backends.base import BaseCache

    class OwnCache(BaseCache):
        def __init__(self, location: str, params: dict[str, Any]) -> None:
            super().__init__(params)

        def get(self, key: str, default: Any = None, version: Any = None) -> Any:
            return "from a cache nobody knows"

    return OwnCache
