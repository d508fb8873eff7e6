-- `http-request lua.keycache` for HAProxy: asks keycache who sent a request. See haproxy.cfg.

local VERIFY = "http://127.0.0.1:8001/verify" -- `listen keycache` of haproxy.cfg
local MILLISECONDS = 5000                     -- more than `listen keycache` ever takes

local ASKED = { "authorization", "x-request-id", "traceparent" }
local IDENTITY = { "x-auth-subject", "x-auth-issuer", "x-auth-scope", "x-auth-token" }
local TOLD = { "content-type", "www-authenticate", "retry-after", "cache-control" }

local UNAVAILABLE = '{"error":"Temporarily unavailable","reason":"temporarily_unavailable",'
    .. '"details":"The token could not be verified."}'

-- The fields of a message under these names, each with all its values in their order.
local function fields(headers, names)
    local found = {}
    for _, name in ipairs(names) do
        local values = headers[name]
        if values then
            local list = {}
            local index = 0 -- HAProxy counts from 0
            while values[index] do
                list[index + 1] = values[index]
                index = index + 1
            end
            found[name] = list
        end
    end
    return found
end

local function is_json(headers)
    return headers["content-type"] ~= nil and headers["content-type"][0] == "application/json"
end

-- Ends the request: the client gets this answer, the API nothing.
local function answer(txn, status, headers, body)
    txn:done(txn:reply { status = status, headers = headers, body = body })
end

local function unavailable(txn)
    local headers = {
        ["content-type"] = { "application/json" },
        ["retry-after"] = { "1" },
        ["cache-control"] = { "no-store" },
    }
    answer(txn, 503, headers, UNAVAILABLE)
end

core.register_action("keycache", { "http-req" }, function(txn)
    local question = fields(txn.http:req_get_headers(), ASKED)
    question["x-forwarded-method"] = { txn.f:method() }
    question["x-forwarded-uri"] = { txn.f:pathq() }
    local said = core.httpclient():get {
        url = VERIFY,
        headers = question,
        timeout = MILLISECONDS,
    }
    if said and said.status == 200 then
        for _, name in ipairs(IDENTITY) do
            local value = said.headers[name] and said.headers[name][0] or ""
            txn.http:req_set_header(name, value)
        end
    elseif said and said.status >= 400 and is_json(said.headers) then
        -- What is no JSON is no word of keycache's: nobody answered `listen keycache`.
        answer(txn, said.status, fields(said.headers, TOLD), said.body)
    else
        unavailable(txn)
    end
end, 0)
