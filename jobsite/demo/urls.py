"""The demonstration's addresses."""

from django.urls import path

from jobsite.demo import views

app_name = "demo"

urlpatterns = [
    path("", views.home, name="home"),
    path("uploads/", views.new_upload, name="new_upload"),
    path("uploads/sample/", views.use_sample, name="use_sample"),
    path("uploads/<uuid:pk>/", views.upload, name="upload"),
    path("uploads/<uuid:pk>/state/", views.upload_state, name="upload_state"),
    path("sign-up/", views.sign_up, name="sign_up"),
    path("sign-up/<uuid:pk>/", views.subscriber, name="subscriber"),
    path("sign-up/<uuid:pk>/state/", views.subscriber_state, name="subscriber_state"),
]
