"""What the client of the examples' tests asks for."""

import sys

from django.http import HttpRequest, HttpResponse
from django.urls import path

from shop.models import Order


def buy(request: HttpRequest) -> HttpResponse:
    order = Order.objects.create()
    sys.modules["shop.tasks"].send_invoice.delay(order.pk)
    return HttpResponse("Thank you.")


urlpatterns = [path("buy/", buy)]
