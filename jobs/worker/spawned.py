"""What a process runs first that a task starts with `multiprocessing`'s methods *spawn* and
*forkserver*: it loads the project, or it could import nothing that has tasks or models."""

import django

django.setup()
