"""The project's addresses, and those of a theme that has some."""

from django.conf import settings
from django.urls import include, path

from jobsite.urls import urlpatterns as project

urlpatterns = list(project)
if settings.THEME == "grappelli":
    urlpatterns.insert(0, path("grappelli/", include("grappelli.urls")))
