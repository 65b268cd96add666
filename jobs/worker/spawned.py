"""Imported first by a process that a task starts with `multiprocessing`'s methods *spawn* or
*forkserver*. It sets Django up, without which no module with tasks or models can be imported."""

import django

django.setup()
