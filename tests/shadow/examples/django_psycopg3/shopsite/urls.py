"""Where everything is."""

from django.urls import path, re_path
from store import views

urlpatterns = [
    path("signup/", views.sign_up),
    path("login/", views.log_in),
    path("me/", views.me),
    path("products/import/", views.import_products),
    re_path(r"^catalogue/(?P<prefix>\w+)/$", views.catalogue),
    path("orders/", views.order),
    path("orders/<int:order_id>/", views.show_order),
    path("orders/<int:order_id>/pay/", views.pay),
    path("report/", views.report),
    path("export/", views.export),
]
