-- Kinds of accounts and transfers for what follows the capture of use: settlement, payouts,
-- refunds, credits, chargebacks, exchange of currencies. The lists stand here whole; what
-- posts each stands in sql/api.

ALTER TABLE ng.account
    DROP CONSTRAINT account_kind_check,
    DROP CONSTRAINT account_check,  -- which are guarded
    DROP CONSTRAINT account_check1, -- which belong to a tenant
    DROP CONSTRAINT account_check2; -- which belong to a provider
ALTER TABLE ng.account
    ADD CONSTRAINT account_kind CHECK (kind IN ('bank', 'wallet', 'hold', 'promo', 'receivable', 'provider_pending',
        'provider_available', 'provider_reserve', 'payout_clearing', 'fee', 'sla_expense', 'promo_expense',
        'rounding', 'tax_output', 'tax_input', 'fx')),
    ADD CONSTRAINT account_guarded CHECK (guarded = (kind IN ('wallet', 'hold', 'promo', 'provider_available', 'provider_reserve'))),
    ADD CONSTRAINT account_tenant CHECK ((kind IN ('wallet', 'hold', 'promo', 'receivable')) = (tenant_id IS NOT NULL)),
    ADD CONSTRAINT account_provider
        CHECK ((kind IN ('provider_pending', 'provider_available', 'provider_reserve')) = (provider_id IS NOT NULL));

ALTER TABLE ng.transfer DROP CONSTRAINT transfer_kind_check;
ALTER TABLE ng.transfer ADD CONSTRAINT transfer_kind CHECK (kind IN (
    'topup', 'hold', 'capture', 'fee', 'release', 'tax', 'rounding', 'collect', 'reversal',
    'settle', 'reserve', 'unreserve',                       -- pending to available, and what is kept of it
    'payout', 'payout_done', 'payout_back',                 -- sent, confirmed by the bank, returned
    'refund', 'refund_fee', 'refund_tax',                   -- a credit note, by who bears it
    'sla', 'sla_fee',                                       -- use that was not what was promised
    'promo', 'promo_used', 'promo_back',                    -- granted, spent, expired
    'chargeback', 'withdraw',                               -- money that the bank took back; that a tenant took out
    'fx'));                                                 -- one of two legs
