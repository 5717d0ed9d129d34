// The guards API as one would write it for speed on Node: Fastify, ioredis with
// auto-pipelining, one atomic script. Nothing but what the comparison needs.
//
//	node server.js <port> <redis port>
import { readFileSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import Fastify from 'fastify'
import { Redis } from 'ioredis'

const [port, redisPort] = process.argv.slice(2).map(Number)
const limit = 10
const interval = 60_000
const ttl = 90_000

const redis = new Redis({ port: redisPort, host: '127.0.0.1', enableAutoPipelining: true })
redis.defineCommand('guard', {
	numberOfKeys: 1,
	lua: readFileSync(new URL('guard.lua', import.meta.url), 'utf8'),
})

const app = Fastify({ logger: false })

const text = { type: 'string' }
const guard = {
	type: 'object',
	properties: {
		guardId: text, streamId: text, createdAt: text, expiresAt: text, removedAt: text,
		refreshAfter: { type: 'integer' },
	},
}
const problem = { type: 'object', properties: { errorCode: text, message: text } }
const response = { 200: guard, 201: guard, 401: problem, 404: problem, 429: problem }
const start = { type: 'object', properties: { streamId: { type: 'string', maxLength: 255 } }, additionalProperties: false }

const iso = (ms) => new Date(ms).toISOString()
const view = (guardId, [now, createdAt, streamId]) => ({
	guardId, streamId, createdAt: iso(createdAt), expiresAt: iso(now + interval), removedAt: iso(now + ttl), refreshAfter: 20,
})
const absent = { errorCode: 'GUARD_DOES_NOT_EXIST', message: 'there is no such guard' }

app.addHook('onRequest', (request, reply, done) => {
	if (request.headers['x-user-id']) return done()
	reply.code(401).send({ errorCode: 'MISSING_USER', message: 'nobody is logged in' })
})

app.post('/guards', { schema: { body: start, response } }, async (request, reply) => {
	const id = randomUUID()
	const got = await redis.guard('sg:' + request.headers['x-user-id'], 'acquire', id, ttl, limit, request.body.streamId ?? '')
	if (!got) {
		reply.code(429)
		return { errorCode: 'REACHED_MAX_GUARDS_COUNT', message: 'stream limit reached' }
	}
	reply.code(201).header('location', '/guards/' + id)
	return view(id, got)
})

app.patch('/guards/:id', { schema: { response } }, async (request, reply) => {
	const got = await redis.guard('sg:' + request.headers['x-user-id'], 'refresh', request.params.id, ttl)
	if (got) return view(request.params.id, got)
	reply.code(404)
	return absent
})

app.delete('/guards/:id', { schema: { response } }, async (request, reply) => {
	const found = await redis.guard('sg:' + request.headers['x-user-id'], 'release', request.params.id)
	if (found) return reply.code(204).send()
	reply.code(404)
	return absent
})

await app.listen({ port, host: '127.0.0.1' })
