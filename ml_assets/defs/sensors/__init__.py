"""Sensors: they look at what has landed and at what is ready, and ask for runs. They move no data."""

from ml_assets.defs.sensors.automation import automation_sensor
from ml_assets.defs.sensors.champions import champions_sensor
from ml_assets.defs.sensors.lag import kafka_lag_sensor
from ml_assets.defs.sensors.landed import landed_data_sensor
from ml_assets.defs.sensors.reference import reference_files_sensor
from ml_assets.defs.sensors.retraining import retraining_sensor

__all__ = [
    "automation_sensor",
    "champions_sensor",
    "kafka_lag_sensor",
    "landed_data_sensor",
    "reference_files_sensor",
    "retraining_sensor",
]
