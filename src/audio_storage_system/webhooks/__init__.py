"""Webhooks: other programs are called when something happens to a recording."""

from audio_storage_system.webhooks.board import DeliveryPage, Webhooks
from audio_storage_system.webhooks.delivering import Deliverer
from audio_storage_system.webhooks.rows import Delivery, DeliveryState, NewWebhook, Webhook

__all__ = ["Deliverer", "Delivery", "DeliveryPage", "DeliveryState", "NewWebhook", "Webhook", "Webhooks"]
