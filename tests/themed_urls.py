"""The project's addresses, and those of a theme that has some."""

from django.urls import include, path

from jobsite.urls import urlpatterns as project
from tests.themed import THEME

urlpatterns = list(project)
if THEME == "grappelli":
    urlpatterns.insert(0, path("grappelli/", include("grappelli.urls")))
