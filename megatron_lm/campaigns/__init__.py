"""A campaign: several models on several engines, timed on one GPU within a budget of time, most valuable first."""

from megatron_lm.campaigns.campaign_command_line import main
from megatron_lm.campaigns.campaign_jobs import CampaignJob, Settings, plan_campaign

__all__ = ["CampaignJob", "Settings", "main", "plan_campaign"]
