"""The model: encoder, decoder, context, velocity field, and CFM-VC made of them."""

from cfmvc.models.bundle import Bundle, load_bundle, save_bundle
from cfmvc.models.cfmvc import CFMVCModel
from cfmvc.models.context import ContextEncoder
from cfmvc.models.decoder import DecoderVAE
from cfmvc.models.encoder import EncoderVAE
from cfmvc.models.likelihoods import diagnose_nan, nb_log_likelihood, nb_sample
from cfmvc.models.velocity_field import FlowField

__all__ = [
    "Bundle",
    "CFMVCModel",
    "ContextEncoder",
    "DecoderVAE",
    "EncoderVAE",
    "FlowField",
    "diagnose_nan",
    "load_bundle",
    "nb_log_likelihood",
    "nb_sample",
    "save_bundle",
]
