"""The settings of the tests, with the admin's theme that the environment variable THEME names."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS

THEME = os.environ["THEME"]
INSTALLED_APPS = [THEME, *INSTALLED_APPS]
ROOT_URLCONF = "tests.themed_urls"

# A test asks no other host.
JAZZMIN_SETTINGS = {"use_google_fonts_cdn": False}
