"""Tables for the tests' tasks and triggers; made with the test database, without migrations."""

from __future__ import annotations

import uuid

from django.db import models


class Run(models.Model):
    """One execution of a task that leaves a trace: `tests.tasks.trace`."""

    label = models.CharField(max_length=255)

    def __str__(self) -> str:
        return self.label


class Author(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title


class Genre(models.Model):
    code = models.CharField(max_length=20, primary_key=True)
    books = models.ManyToManyField(Book, related_name="genres")

    class Meta:
        ordering = ("-code",)

    def __str__(self) -> str:
        return self.code


class Novel(Book):
    """Its primary key is that of a book."""

    pages = models.IntegerField(default=0)


class Badge(models.Model):
    """Its primary key is a genre's, whose rows have an order of their own."""

    genre = models.OneToOneField(Genre, on_delete=models.CASCADE, primary_key=True)
    uid = models.UUIDField(unique=True, default=uuid.uuid4)
    at = models.DateTimeField(unique=True)
    price = models.DecimalField(unique=True, max_digits=9, decimal_places=2)

    def __str__(self) -> str:
        return str(self.uid)


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=2)
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.row}{self.number}"


class Order(models.Model):
    """The documentation's examples know it as ``shop.models.Order``."""

    # Without a constraint: tables without migrations are made before the users'.
    customer = models.ForeignKey(
        "auth.User", on_delete=models.CASCADE, null=True, db_constraint=False
    )
    shop_id = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"order {self.pk}"


class Account(models.Model):
    balance = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"account {self.pk}"
